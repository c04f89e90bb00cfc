"""Expiry: holds that were not confirmed in time give their stock back."""

from collections.abc import Collection

from sqlalchemy import BigInteger, any_, bindparam, cast
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from domain.outbox import Routes
from domain.reservations.lifecycle import Status
from domain.reservations.table import Reservation, is_hold, read, reservations
from domain.reservations.transition import NOT_CONFIRMED, Change, transition
from domain.runtime.database import CLOCK

#: Holds that are expired in one statement when an item runs short. It is repeated while there are more.
TAKE_BACK_LIMIT = 1_000


def expire(session: Session, limit: int, routes: Routes) -> int:
    """Expire up to `limit` overdue holds, the longest overdue first. Return how many.

    Holds that another transaction has locked are skipped.
    """
    overdue = _overdue.order_by(reservations.c.expires_at).limit(limit)
    return _expire(session, [Reservation.of(row) for row in session.execute(overdue)], routes)


def take_back(session: Session, item_ids: Collection[int], routes: Routes) -> int:
    """Expire overdue holds of items that the caller has locked. Return how many.

    It skips reservations that another transaction has locked, and so never waits for a reservation while it has
    locked an item: every transaction that locks both locks the reservation first.
    """
    if not item_ids:
        return 0
    overdue = [Reservation.of(row) for row in session.execute(_TAKE_BACK, {"ids": list(item_ids)})]
    return _expire(session, overdue, routes)


def _expire(session: Session, overdue: list[Reservation], routes: Routes) -> int:
    if overdue:
        transition(session, [Change(of=one, to=Status.EXPIRED, reason=NOT_CONFIRMED) for one in overdue], routes)
    return len(overdue)


_overdue = read.where(is_hold, reservations.c.expires_at <= CLOCK).with_for_update(
    of=reservations, key_share=True, skip_locked=True
)
_TAKE_BACK = (
    _overdue.where(reservations.c.item_id == any_(cast(bindparam("ids"), ARRAY(BigInteger))))
    .order_by(reservations.c.expires_at)
    .limit(TAKE_BACK_LIMIT)
)
