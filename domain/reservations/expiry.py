"""Holds that nobody confirmed in time, and their stock."""

from collections.abc import Collection

from sqlalchemy import BigInteger, any_, bindparam, cast
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from domain.reservations.lifecycle import Status
from domain.reservations.table import Reservation, is_hold, read, reservations
from domain.reservations.transition import LAPSED, Change, transition
from domain.runtime.database import CLOCK

#: Holds taken back in one go when an item runs short. More are taken in further goes.
TAKE_BACK_LIMIT = 1_000


def expire(session: Session, limit: int) -> int:
    """Expire up to `limit` overdue holds, the longest overdue first. Return how many.

    Holds that someone else has locked are theirs to expire.
    """
    overdue = _overdue.order_by(reservations.c.expires_at).limit(limit)
    return _expire(session, [Reservation.of(row) for row in session.execute(overdue)])


def take_back(session: Session, item_ids: Collection[int]) -> int:
    """Expire overdue holds of items that the caller has locked. Return how many.

    It skips what others have locked and so never waits for a reservation while it holds
    an item: whoever locks both takes the reservation first.
    """
    if not item_ids:
        return 0
    return _expire(session, [Reservation.of(row) for row in session.execute(_TAKE_BACK, {"ids": list(item_ids)})])


def _expire(session: Session, overdue: list[Reservation]) -> int:
    if overdue:
        transition(session, [Change(of=one, to=Status.EXPIRED, reason=LAPSED) for one in overdue])
    return len(overdue)


_overdue = read.where(is_hold, reservations.c.expires_at <= CLOCK).with_for_update(
    of=reservations, key_share=True, skip_locked=True
)
_TAKE_BACK = (
    _overdue.where(reservations.c.item_id == any_(cast(bindparam("ids"), ARRAY(BigInteger))))
    .order_by(reservations.c.expires_at)
    .limit(TAKE_BACK_LIMIT)
)
