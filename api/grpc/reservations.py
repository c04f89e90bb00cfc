"""The methods that make, change and read one reservation."""

import re
from base64 import b64decode, b64encode
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import TypeVar

from sqlalchemy.orm import Session

from api.grpc.calls import Call, hash_of
from api.grpc.messages import (
    MAX_NOTE_CHARACTERS,
    message_of,
    name_in,
    period_of,
    reservation_id_of,
    status_in,
    text_in,
)
from api.grpc.proto import reservation_pb2 as proto
from api.grpc.transactions import Transactions
from domain import calendars, idempotency, items, reservations
from domain.access import reach_of
from domain.calendars import Settings as CalendarSettings
from domain.idempotency import Answered, Key
from domain.items import Item
from domain.outbox import Routes
from domain.reservations import Amendment, Claim, Reservation, Reserve, Wanted
from domain.reservations.lifecycle import MAX_HOLD, RELEASING, Status
from domain.reservations.ownership import made_for
from domain.runtime.errors import Invalid, NotAllowed, NotFree, Refusal, SkuTaken, UnknownItem
from domain.runtime.settings import Settings

R = TypeVar("R", proto.ReserveResponse, proto.ConfirmResponse, proto.UpdateResponse, proto.CancelResponse)

TTL = "ttl-seconds"
MAX_TTL_SECONDS = int(MAX_HOLD.total_seconds())

#: The calendar that an unknown resource is registered as.
NEW_RESOURCE = CalendarSettings(capacity=1, time_zone="UTC")

_SECONDS = re.compile("[0-9]{1,6}")

#: The statuses that a reservation may begin with, and the operation that says who may have it begin so.
FIRST = {
    Status.PENDING: "reservations.make",
    Status.CONFIRMED: "reservations.confirm",
    Status.BLOCKED: "reservations.block",
}

#: The operations by which a reservation gets a status. On what each may be used, its note may be changed as well.
OPERATIONS = {
    Status.PENDING: "reservations.change",
    Status.CONFIRMED: "reservations.confirm",
    Status.CHECKED_IN: "reservations.check-in",
    Status.COMPLETED: "reservations.complete",
    Status.CANCELLED: "reservations.cancel",
    Status.REJECTED: "reservations.reject",
    Status.NO_SHOW: "reservations.no-show",
    Status.BLOCKED: "reservations.block",
}

#: Where the contract has what the domain finds invalid in a reservation to make.
FIELDS = {"start": "reservation.start", "end": "reservation.end"}


class Reservations:
    """The methods, each with the name that it has in the contract."""

    def __init__(self, transactions: Transactions, routes: Routes, settings: Settings) -> None:
        self._transactions = transactions
        self._routes = routes
        self._requires_keys = settings.require_idempotency_keys
        self._registers_resources = settings.grpc_register_resources
        self._hold_lifetime = timedelta(seconds=settings.hold_seconds)

    def reserve(self, call: Call, request: proto.ReserveRequest) -> bytes:
        """Make a reservation of a resource for a period."""
        try:
            return self._reserve(call, self._wanted(call, request))
        except Invalid as error:
            raise Invalid(FIELDS.get(error.field, error.field), error.reason) from error
        except NotFree as refused:
            raise call.result(self._transactions.explain(refused, call.principal)) from None

    def _reserve(self, call: Call, wanted: Reserve) -> bytes:
        try:
            return self._answered(call, call.result(self._transactions.reserve(wanted)))
        except UnknownItem as unknown:
            if not self._registers_resources:
                raise
            # It belongs to no venue and to no provider.
            if not reach_of(call.principal, "items.create").is_everything:
                raise NotAllowed("items.create") from None
            self._register(call, str(unknown.item))
        return self._answered(call, call.result(self._transactions.reserve(wanted)))

    def _wanted(self, call: Call, request: proto.ReserveRequest) -> Reserve:
        if not request.HasField("reservation"):
            raise Invalid("reservation", "it is required")
        asked, key = request.reservation, self._key(call, "reserve")
        if asked.id:
            raise Invalid("reservation.id", "it must be empty: the answer has the id")
        status = status_in("reservation.status", asked.status) or Status.PENDING
        if status not in FIRST:
            raise Invalid("reservation.status", "a reservation is made as PENDING, CONFIRMED or BLOCKED")
        reach = reach_of(call.principal, FIRST[status])
        is_guest = reach.guest_id is not None
        user_id = asked.user_id if is_guest and not asked.user_id else name_in("reservation.user_id", asked.user_id)
        guest_id, within = made_for(user_id or None, reach, FIRST[status])
        ttl = _ttl(call, status)
        return Reserve(
            lines=(Claim(name_in("reservation.resource_id", asked.resource_id), 1, period_of(asked)),),
            status=status,
            # Hosts hold what is theirs for as long as they like.
            hold_for=self._hold_lifetime if ttl is None and is_guest else ttl,
            key=key,
            payload_hash=hash_of(request, ttl) if key else "",
            guest_id=guest_id,
            within=within,
            note=text_in("reservation.note", asked.note, MAX_NOTE_CHARACTERS) or None,
            client_id=call.principal.client_id,
            changed_by=call.principal.name,
            source="grpc",
            render=_renders(proto.ReserveResponse),
            headers=call.trace(),
        )

    def _register(self, call: Call, sku: str) -> None:
        """Make a calendar of capacity 1, unless another call has made it meanwhile."""

        def act(session: Session) -> Item:
            created = calendars.create(session, sku=sku, name=sku, settings=NEW_RESOURCE)
            items.audit_creation(session, created, who=call.principal.name)
            return created

        with suppress(SkuTaken):
            call.result(self._transactions.run("item_changes", act, call.principal))

    def confirm(self, call: Call, request: proto.ConfirmRequest) -> bytes:
        """Confirm a PENDING reservation."""
        return self._change(call, request, "confirm", Status.CONFIRMED, proto.ConfirmResponse, is_repeatable=False)

    def update(self, call: Call, request: proto.UpdateRequest) -> bytes:
        """Set the note of a reservation and, unless it is UNKNOWN, its status."""
        to = status_in("status", request.status)
        if to is Status.EXPIRED:
            raise Invalid("status", "a reservation expires by itself; cancel it instead")
        if to is not None:
            call.reach = reach_of(call.principal, OPERATIONS[to])
        note = text_in("note", request.note, MAX_NOTE_CHARACTERS) or None
        return self._change(call, request, "update", Amendment({"note": note}, to), proto.UpdateResponse)

    def cancel(self, call: Call, request: proto.CancelRequest) -> bytes:
        """Cancel a reservation, whose time becomes free."""
        return self._change(call, request, "cancel", Status.CANCELLED, proto.CancelResponse)

    def get(self, call: Call, request: proto.GetRequest) -> bytes:
        """Return a reservation."""
        reservation_id = reservation_id_of(request.id)

        def act(session: Session) -> Reservation:
            return reservations.get(session, reservation_id, call.reach)

        reading = self._transactions.run("reads", act, call.principal)
        return proto.GetResponse(reservation=message_of(call.result(reading))).SerializeToString()

    def _change(
        self,
        call: Call,
        request: proto.ConfirmRequest | proto.UpdateRequest | proto.CancelRequest,
        operation: str,
        wanted: Wanted,
        response: type[R],
        *,
        is_repeatable: bool = True,
    ) -> bytes:
        reservation_id, key, client = reservation_id_of(request.id), self._key(call, operation), call.principal

        def change(session: Session) -> Reservation | Refusal:
            return reservations.change(
                session,
                reservation_id,
                wanted,
                is_repeatable=is_repeatable,
                changed_by=client.name,
                reach=call.reach,
                headers=call.trace(),
                routes=self._routes,
            )

        def act(session: Session) -> Answered | Refusal:
            return idempotency.once(session, key, hash_of(request), change, _renders(response))

        return self._answered(call, call.result(self._transactions.run(_kind(wanted), act, client)))

    def _key(self, call: Call, operation: str) -> Key | None:
        key = call.key(f"grpc.{operation}")
        if key is None and self._requires_keys:
            raise Invalid("idempotency-key", "this metadata is required (REQUIRE_IDEMPOTENCY_KEYS)")
        return key

    def _answered(self, call: Call, outcome: Answered | Refusal) -> bytes:
        if isinstance(outcome, Refusal):
            raise outcome
        if outcome.replayed:
            call.note_replay()
        return b64decode(outcome.text)


def _ttl(call: Call, status: Status) -> timedelta | None:
    """Return for how long a reservation is PENDING at most, as its call asks for. Without, it is for ever."""
    written = call.value(TTL)
    if written is None:
        return None
    if not _SECONDS.fullmatch(written) or not 1 <= int(written) <= MAX_TTL_SECONDS:
        raise Invalid(TTL, f"it must be a number of seconds from 1 to {MAX_TTL_SECONDS}")
    if status is not Status.PENDING:
        raise Invalid(TTL, "only a PENDING reservation expires")
    return timedelta(seconds=int(written))


def _kind(wanted: Wanted) -> str:
    """Return the kind of the transaction. One that gives something back locks its item."""
    to = wanted.to if isinstance(wanted, Amendment) else wanted
    return "item_changes" if to in RELEASING else "changes"


def _renders(response: type[R]) -> Callable[[Reservation], str]:
    """Return what renders a reservation as a response of this type, in text, as idempotency keys remember answers."""

    def render(reservation: Reservation) -> str:
        return b64encode(response(reservation=message_of(reservation)).SerializeToString()).decode()

    return render
