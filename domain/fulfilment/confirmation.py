"""What the confirmation service's answers do to reservations."""

import json
from collections.abc import Collection, Mapping
from types import MappingProxyType
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from domain import outbox
from domain.outbox import Routes
from domain.reservations import events
from domain.reservations.lifecycle import RELEASING, Status
from domain.reservations.table import Reservation, reservations, status_by_now
from domain.reservations.transition import NOT_CONFIRMED, Change, lock, transition
from domain.runtime.database import is_given

#: Who is noted as having confirmed or declined.
SERVICE = "confirmation-service"

#: The reasons that reservations, their history and their events have. Programs may rely on these codes. What the
#: service answered is not part of them: it may contain anything.
DECLINED = "confirmation-declined"
GIVEN_UP = "confirmation-unavailable"


def cause(headers: str) -> Mapping[str, str]:
    """Return the headers that tie a row to the request that caused it, for the events that follow from its answer."""
    recorded: Mapping[str, str] = json.loads(headers)
    return {name: value for name, value in recorded.items() if name != "replayed"}


def still_held(session: Session, ids: Collection[UUID]) -> Collection[UUID]:
    """Return those of these reservations that are holds now, and not overdue. Nothing is locked."""
    return set(session.execute(_STILL_HELD, {"ids": list(ids)}).scalars())


_STILL_HELD = select(reservations.c.id).where(is_given(reservations.c.id), status_by_now == Status.PENDING)


def answer(
    session: Session,
    *,
    confirmed: Collection[UUID],
    declined: Collection[UUID],
    given_up: Collection[UUID],
    unasked: Collection[UUID] = (),
    headers: Mapping[UUID, Mapping[str, str]] = MappingProxyType({}),
    routes: Routes,
) -> None:
    """Confirm the holds that are still PENDING, reject those that were declined, and cancel those given up.

    `given_up` are holds for which there was no answer after the last attempt. Those `unasked` were overdue before the
    service was asked this time, and expire. If the service may have confirmed a reservation that is not held any more,
    it is asked to release it. A reservation that was confirmed meanwhile, by a repeat of the answer or by hand, stays
    confirmed. `headers` tie the events of each reservation to the request that the service was asked for.
    """
    locked = lock(session, [*confirmed, *declined, *given_up, *unasked])
    pending = [one for one in locked if one.status is Status.PENDING]
    changes = [_change(one, declined, given_up, unasked, headers.get(one.id, {})) for one in pending]
    answers = transition(session, changes, routes)
    kept = {one.id for one in answers if isinstance(one, Reservation) and one.status is Status.CONFIRMED}
    kept |= {one.id for one in locked if one not in pending and one.status not in RELEASING}
    ended = [one for one in locked if one.id not in kept and one.id not in declined]
    outbox.record(session, [events.release(one, headers.get(one.id, {})) for one in ended], routes)


def _change(
    one: Reservation,
    declined: Collection[UUID],
    given_up: Collection[UUID],
    unasked: Collection[UUID],
    headers: Mapping[str, str],
) -> Change:
    if one.id in unasked:
        return Change(of=one, to=Status.EXPIRED, reason=NOT_CONFIRMED, headers=headers)
    if one.id in declined:
        return Change(of=one, to=Status.REJECTED, reason=DECLINED, changed_by=SERVICE, headers=headers)
    if one.id in given_up:
        return Change(of=one, to=Status.CANCELLED, reason=GIVEN_UP, headers=headers)
    return Change(of=one, to=Status.CONFIRMED, changed_by=SERVICE, headers=headers)
