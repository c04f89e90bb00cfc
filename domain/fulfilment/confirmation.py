"""What the confirmation service's answers do to reservations."""

from collections.abc import Collection, Mapping
from uuid import UUID

from sqlalchemy import Uuid, any_, bindparam, cast, func, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from domain import outbox
from domain.outbox import Routes
from domain.reservations import events
from domain.reservations.lifecycle import RELEASING, Status
from domain.reservations.table import Reservation, is_hold, reservations
from domain.reservations.transition import Change, lock, transition

#: Who is noted as having confirmed or declined.
SERVICE = "confirmation-service"


def still_held(session: Session, ids: Collection[UUID]) -> Collection[UUID]:
    """Return those of these reservations that are unexpired holds now. Nothing is locked."""
    return set(session.execute(_STILL_HELD, {"ids": list(ids)}).scalars())


_STILL_HELD = select(reservations.c.id).where(
    reservations.c.id == any_(cast(bindparam("ids"), ARRAY(Uuid))),
    is_hold,
    reservations.c.expires_at > func.clock_timestamp(),
)


def answer(
    session: Session,
    *,
    confirmed: Collection[UUID],
    declined: Mapping[UUID, str],
    given_up: Mapping[UUID, str],
    routes: Routes,
) -> None:
    """Confirm the holds that are still PENDING, or cancel them for the reason given.

    `given_up` are holds for which there was no answer after the last attempt. If the service may have confirmed a
    reservation that is not held any more, it is asked to release it. A reservation that was confirmed meanwhile, by
    a repeat of the answer or by hand, stays confirmed.
    """
    locked = lock(session, [*confirmed, *declined, *given_up])
    pending = [one for one in locked if one.status is Status.PENDING]
    answers = transition(session, [_change(one, declined, given_up) for one in pending], routes)
    kept = {one.id for one in answers if isinstance(one, Reservation) and one.status is Status.CONFIRMED}
    kept |= {one.id for one in locked if one not in pending and one.status not in RELEASING}
    ended = [one for one in locked if one.id not in kept and one.id not in declined]
    outbox.record(session, [events.release(one) for one in ended], routes)


def _change(one: Reservation, declined: Mapping[UUID, str], given_up: Mapping[UUID, str]) -> Change:
    if one.id in declined:
        reason = f"the confirmation service declined: {declined[one.id]}"
        return Change(of=one, to=Status.CANCELLED, reason=reason, changed_by=SERVICE)
    if one.id in given_up:
        reason = f"the confirmation service could not be asked: {given_up[one.id]}"
        return Change(of=one, to=Status.CANCELLED, reason=reason)
    return Change(of=one, to=Status.CONFIRMED, changed_by=SERVICE)
