"""The guests of reservations over HTTP: the only operations that show, change or look for personal data."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any
from uuid import UUID

import msgspec
import structlog
from litestar import Request, Response, get, post, put
from litestar.handlers import HTTPRouteHandler
from msgspec import Meta
from sqlalchemy.orm import Session

from api.bulkheads import ClientBulkhead
from api.http.decoding import Strict
from api.http.headers import key_of, principal_of
from api.http.payloads import private_hash_of
from api.http.responses import changing, reading
from api.personal_data import personal_data_of
from api.reservations import cursors
from api.reservations.people import Email, GuestDetails, Telephone, person_of, require_contacts
from domain import idempotency, reservations
from domain.access import Principal, Reach, audit
from domain.idempotency import Answered
from domain.privacy import KeyService, Person, SealedGuest, guests, key_check, open_guest, seal
from domain.privacy.key_check import Sample
from domain.reservations import of_guests
from domain.reservations.of_guests import Conditions
from domain.runtime.errors import (
    GuestForgotten,
    GuestUnreadable,
    Invalid,
    NoKeys,
    PersonalDataUnavailable,
    Refusal,
    SearchIncomplete,
    UnknownGuest,
    UnknownReservation,
)
from domain.runtime.identity import HIGHEST_ID

AnyRequest = Request[Any, Any, Any]

#: What answers with personal data say to every cache on the way.
NOT_STORED = {"Cache-Control": "no-store"}

log = structlog.get_logger()


class GuestSearch(msgspec.Struct, forbid_unknown_fields=True):
    """By what to look for a guest: give either `email` or `telephone`. To get the next page, give `cursor` as well.

    E-mail addresses are compared without regard to case, and telephone numbers by their digits and a leading plus.
    """

    email: Email | None = None
    telephone: Telephone | None = None
    limit: Annotated[int, Meta(ge=1, le=1_000, examples=[100])] = 100
    cursor: Annotated[str, Meta(max_length=100)] | None = None


class GuestSearchPage(msgspec.Struct):
    """The ids of reservations whose guest was found, the newest first. If there is a `next_cursor`, there are more.

    If it is not `complete`, some guests could not be found, because the key that they were encrypted by is not there.
    """

    reservation_ids: list[UUID]
    next_cursor: str | None
    complete: bool


class GuestKept(msgspec.Struct):
    """The reservation whose guest was changed. The answer has nothing of the guest."""

    reservation_id: UUID


@get(
    "/reservations/{reservation_id:str}/guest",
    responses=reading(
        UnknownReservation, UnknownGuest, GuestForgotten, NoKeys, GuestUnreadable, PersonalDataUnavailable
    ),
    tags=["guests"],
    operation="guests.read",
)
async def get_guest(
    request: AnyRequest, reservation_id: UUID, reads: ClientBulkhead, reach: Reach
) -> Response[GuestDetails]:
    """Get the person that a reservation is for."""
    personal_data, principal = personal_data_of(request.app.state), principal_of(request.scope)

    def read(session: Session) -> SealedGuest:
        reservations.get(session, reservation_id, reach)
        return read_guest(session, reservation_id, principal)

    opened = partial(opened_guest, sealed=await reads.run(read), reservation_id=reservation_id)
    person = await personal_data.run(opened, principal)
    return Response(GuestDetails.of(person), headers=NOT_STORED)


@put(
    "/reservations/{reservation_id:str}/guest",
    dto=Strict[GuestDetails],
    status_code=200,
    responses=changing(UnknownReservation, GuestForgotten, NoKeys, PersonalDataUnavailable),
    tags=["guests"],
    operation="guests.change",
)
async def change_guest(
    request: AnyRequest, reservation_id: UUID, changes: ClientBulkhead, reach: Reach, data: GuestDetails
) -> Response[GuestKept]:
    """Say who the person is that a reservation is for, in place of what was said before."""
    personal_data, key = personal_data_of(request.app.state), key_of(request.scope, "guests.change")
    principal = principal_of(request.scope)
    person = person_of(data.name, data.email, data.telephone, data.special_requests)
    body = await request.body()

    def encrypt(keys: KeyService) -> tuple[SealedGuest, str]:
        return seal(keys, person), private_hash_of(body, keys, None, reservation_id) if key else ""

    sealed, payload_hash = await personal_data.run(encrypt, principal)

    def change(session: Session) -> UUID | Refusal:
        reservations.get(session, reservation_id, reach)
        return keep_guest(session, reservation_id, sealed, principal) or reservation_id

    def act(session: Session) -> Answered | Refusal:
        return idempotency.once(session, key, payload_hash, change, _render_kept)

    outcome = await changes.run(act)
    if isinstance(outcome, Refusal):
        raise outcome
    replayed = {"Idempotency-Replayed": "true"} if outcome.replayed else {}
    return Response(GuestKept(reservation_id), headers=replayed)


@post(
    "/guests/search",
    dto=Strict[GuestSearch],
    status_code=200,
    responses=reading(NoKeys, SearchIncomplete, PersonalDataUnavailable, has_body=True),
    tags=["guests"],
    only_reads=True,
    operation="guests.search",
)
async def search_guests(
    request: AnyRequest, lists: ClientBulkhead, reach: Reach, data: GuestSearch
) -> Response[GuestSearchPage]:
    """Find the reservations of a guest by an e-mail address or a telephone number, which are sent in no URL."""
    before = HIGHEST_ID if data.cursor is None else cursors.read_id(data.cursor)
    personal_data, principal = personal_data_of(request.app.state), principal_of(request.scope)
    wanted = await personal_data.run(partial(_conditions, asked=data), principal)

    def find(session: Session) -> tuple[Sequence[UUID], Sequence[Sample]]:
        # One more than a page has, which shows whether there is another page.
        found = of_guests.find(session, wanted, before=before, limit=data.limit + 1, reach=reach)
        audit.record(session, "guest.search", who=principal.name, rows=min(len(found), data.limit))
        return found, key_check.samples(session)

    found, samples = await lists.run(find)
    missing = await personal_data.run(partial(key_check.unusable, found=samples), principal)
    if missing:
        log.error("guests.not_all_found", key_ids=missing, advice="see bin/doctor")
    if missing and not found and data.cursor is None:
        raise SearchIncomplete(missing[0])
    return Response(_page(found, data.limit, complete=not missing), headers=NOT_STORED)


def _page(found: Sequence[UUID], limit: int, *, complete: bool) -> GuestSearchPage:
    shown = list(found[:limit])
    return GuestSearchPage(shown, str(shown[-1]) if len(found) > limit else None, complete)


def read_guest(session: Session, reservation_id: UUID, principal: Principal) -> SealedGuest:
    """Return the guest of a reservation, and record who reads it. Raises UnknownGuest, GuestForgotten."""
    sealed = guests.read(session, reservation_id)
    audit.record(session, "guest.read", who=principal.name, subject=f"reservation:{reservation_id}", rows=1)
    return sealed


def keep_guest(
    session: Session, reservation_id: UUID, sealed: SealedGuest, principal: Principal
) -> GuestForgotten | None:
    """Keep a guest in place of the one that a reservation has, and record who changes it. Return why it can't be."""
    refused = guests.change(session, reservation_id, sealed)
    if refused is None:
        audit.record(session, "guest.change", who=principal.name, subject=f"reservation:{reservation_id}", rows=1)
    return refused


def opened_guest(keys: KeyService, sealed: SealedGuest, reservation_id: UUID) -> Person:
    """Return the person that a guest is. Raises GuestUnreadable, and logs it: an operator has to see to it."""
    try:
        return open_guest(keys, sealed)
    except GuestUnreadable as error:
        log.error("guest.unreadable", key_id=error.key_id, reservation_id=str(reservation_id), advice="see bin/doctor")
        raise


def _conditions(keys: KeyService, asked: GuestSearch) -> Conditions:
    """Return the conditions for the guests that are looked for. Raises Invalid."""
    require_contacts(asked.email, asked.telephone)
    if (asked.email is None) == (asked.telephone is None):
        raise Invalid("email", "give either email or telephone")
    if asked.email is not None:
        return guests.with_email(keys, asked.email)
    return guests.with_telephone(keys, asked.telephone or "")


def _render_kept(reservation_id: UUID) -> str:
    return msgspec.json.encode(GuestKept(reservation_id)).decode()


ROUTES: Sequence[HTTPRouteHandler] = (get_guest, change_guest, search_guests)
