"""Expiry: holds that were not confirmed in time give their stock back."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from math import inf
from operator import attrgetter
from uuid import UUID

from sqlalchemy import BigInteger, Integer, Uuid, any_, bindparam, cast, func, select, true, union_all
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from domain import items
from domain.outbox import Routes
from domain.reservations.lifecycle import Status
from domain.reservations.table import Reservation, is_overdue, read_for_events, reservation_lines, reservations
from domain.reservations.transition import NOT_CONFIRMED, Change, transition
from domain.runtime.database import CLOCK, arrays, lists

#: The holds that one call of `take_back` expires at most, so that nobody waits long for the locks of their items.
TAKE_BACK_LIMIT = 1_000


def expire(session: Session, limit: int, routes: Routes) -> int:
    """Expire up to `limit` overdue holds, the longest overdue first. Return how many.

    Holds that another transaction has locked are skipped.
    """
    overdue = _overdue.order_by(reservations.c.expires_at).limit(limit)
    return _expire(session, [Reservation.of(row) for row in session.execute(overdue)], routes)


def overdue_units(session: Session, item_ids: Collection[int], most_holds: int | None) -> Mapping[int, float]:
    """Return how many units overdue holds still keep, by item. It locks nothing.

    An item with more overdue holds than `most_holds` has infinitely many: they are not counted to the end.
    """
    counted = session.execute(_OVERDUE_UNITS, lists(_counted, item_id=list(item_ids)) | {"most_holds": most_holds})
    return {row.item_id: inf if most_holds is not None and row.holds >= most_holds else row.units for row in counted}


def take_back(session: Session, wanted: Mapping[int, int], routes: Routes, *, limit: int = TAKE_BACK_LIMIT) -> int:
    """Expire overdue holds of items that the caller has locked, the longest overdue first. Return how many.

    It stops when it has as many units of each item as are wanted, or `limit` holds. It skips reservations that
    another transaction has locked, and so never waits for a reservation while it has locked an item: every
    transaction that locks both locks the reservation first.
    """
    if not wanted:
        return 0
    # A hold has at least one unit, so an item needs no more holds than units.
    asked = lists(_wanted, item_id=list(wanted), holds=[min(limit, units) for units in wanted.values()])
    overdue = [
        Reservation.of(row)
        for statement in (_TAKE_BACK, _TAKE_BACK_LINES)
        for row in session.execute(statement, asked | {"limit": limit})
    ]
    return _expire(session, _enough(_released(session, overdue, wanted), wanted)[:limit], routes)


def expire_these(session: Session, ids: Collection[UUID], routes: Routes) -> int:
    """Expire those of these reservations that are overdue holds of calendars. Return how many.

    It skips reservations that another transaction has locked, as `take_back` does.
    """
    if not ids:
        return 0
    found = session.execute(_THESE, {"reservation_ids": list(ids)})
    return _expire(session, [Reservation.of(row) for row in found], routes)


def _released(session: Session, overdue: Sequence[Reservation], locked: Collection[int]) -> Sequence[Reservation]:
    """Return the holds that can give back all their units without waiting, each once, the longest overdue first.

    A hold of several items is left out if another transaction has locked one of them. To wait for it could be a
    deadlock, because items that are waited for are locked in order of id, and some of them are locked already.
    """
    held = {line.item_id for hold in overdue for line in hold.further_lines or ()} | {hold.item_id for hold in overdue}
    others = held.difference(locked)
    free = {*locked, *(item.id for item in items.lock_free(session, others).items)} if others else set(locked)
    by_id = {hold.id: hold for hold in overdue if free.issuperset(line.item_id for line in hold.lines)}
    return sorted(by_id.values(), key=attrgetter("expires_at"))


def _enough(overdue: Iterable[Reservation], wanted: Mapping[int, int]) -> list[Reservation]:
    """Return the first of the holds until they have as many units of each item as are wanted."""
    missing = dict(wanted)
    taken = []
    for hold in overdue:
        if any(missing.get(line.item_id, 0) > 0 for line in hold.lines):
            taken.append(hold)
            for line in hold.lines:
                missing[line.item_id] = missing.get(line.item_id, 0) - line.quantity
    return taken


def _expire(session: Session, overdue: list[Reservation], routes: Routes) -> int:
    if overdue:
        transition(session, [Change(of=one, to=Status.EXPIRED, reason=NOT_CONFIRMED) for one in overdue], routes)
    return len(overdue)


_overdue = read_for_events.where(is_overdue).with_for_update(of=reservations, key_share=True, skip_locked=True)

_these = any_(cast(bindparam("reservation_ids"), ARRAY(Uuid)))
_THESE = _overdue.where(reservations.c.id == _these, reservations.c.starts_at.is_not(None))

# All look at one item after the other, and read its holds in order of an index. Otherwise PostgreSQL would at times,
# by its statistics, read and sort all holds of the items, or all that are overdue.
_wanted = arrays("wanted", item_id=BigInteger, holds=Integer)
_limit = bindparam("limit", type_=Integer)
_longest_overdue = (
    _overdue.where(reservations.c.item_id == _wanted.c.item_id)
    .order_by(reservations.c.expires_at)
    .limit(_wanted.c.holds)
    .lateral("longest_overdue")
)
_TAKE_BACK = select(_longest_overdue).select_from(_wanted.join(_longest_overdue, true())).limit(_limit)

# The holds with one of the items in a line after the first. `held_until` is null when a reservation is no hold.
_is_held = reservation_lines.c.held_until <= CLOCK
_held_lines = (
    select(reservation_lines.c.reservation_id)
    .where(_is_held, reservation_lines.c.item_id == _wanted.c.item_id)
    .order_by(reservation_lines.c.held_until)
    .limit(_wanted.c.holds)
    .lateral("held_lines")
)
_with_lines = select(_held_lines.c.reservation_id).select_from(_wanted.join(_held_lines, true())).limit(_limit)
_TAKE_BACK_LINES = _overdue.where(reservations.c.id.in_(_with_lines))

_counted = arrays("counted", item_id=BigInteger)
_most_holds = bindparam("most_holds", type_=Integer)
_first_lines = (
    select(reservations.c.quantity)
    .where(is_overdue, reservations.c.item_id == _counted.c.item_id)
    .order_by(reservations.c.expires_at)
    .limit(_most_holds)
    .correlate(_counted)
)
_further_lines = (
    select(reservation_lines.c.quantity)
    .where(_is_held, reservation_lines.c.item_id == _counted.c.item_id)
    .order_by(reservation_lines.c.held_until)
    .limit(_most_holds)
    .correlate(_counted)
)
_lines = union_all(_first_lines, _further_lines).subquery("lines")
_sum = select(func.count().label("holds"), func.sum(_lines.c.quantity).label("units")).lateral("sum")
_OVERDUE_UNITS = select(_counted.c.item_id, _sum).select_from(_counted.join(_sum, true())).where(_sum.c.holds > 0)
