"""The invariants of calendars."""

from sqlalchemy import ColumnElement, Select, String, and_, case, cast, func, literal, select, union_all

from domain.calendars.table import occupancies
from domain.invariants.invariant import Invariant
from domain.items import items
from domain.reservations.lifecycle import FREEING
from domain.reservations.table import is_hold, reservation_lines, reservations

#: All rows are judged at one moment.
_now = func.statement_timestamp()


def _above_capacity() -> Select[str]:
    """The calendars of which more is taken than their capacity, at some moment from now on, with the first such moment.

    Starts and ends are added up in order of time, so no occupancy is compared with others. PostgreSQL adds up those of
    one moment together: what ends then is not in use beside what starts then. Lapsed holds count as free.
    """
    is_kept = and_(occupancies.c.blocked_until > _now, func.coalesce(occupancies.c.held_until > _now, True))
    start = func.greatest(occupancies.c.blocked_from, _now).label("at")
    bounds = union_all(
        select(occupancies.c.item_id, start, occupancies.c.units).where(is_kept),
        select(occupancies.c.item_id, occupancies.c.blocked_until, -occupancies.c.units).where(is_kept),
    ).subquery("bounds")
    taken = func.sum(bounds.c.units).over(partition_by=bounds.c.item_id, order_by=bounds.c.at)
    steps = select(bounds.c.item_id, bounds.c.at, taken.label("taken")).subquery("steps")
    return (
        select(func.concat(items.c.sku, " from ", _instant(func.min(steps.c.at)), " on"))
        .join_from(steps, items, items.c.id == steps.c.item_id)
        .where(steps.c.taken > items.c.capacity)
        .group_by(items.c.id)
        .order_by(items.c.sku)
    )


def _instant(at: ColumnElement[object]) -> ColumnElement[str]:
    return func.to_char(func.timezone("UTC", at), 'YYYY-MM-DD"T"HH24:MI:SS"Z"')


_takes_time = and_(reservations.c.starts_at.is_not(None), reservations.c.status.not_in(FREEING))
_times = reservations.c["starts_at", "ends_at"]
_first_lines = select(
    reservations.c.id, literal(1).label("position"), reservations.c.item_id, reservations.c.quantity, *_times
).where(_takes_time)
_further_lines = (
    select(reservations.c.id, *reservation_lines.c["position", "item_id", "quantity"], *_times)
    .join_from(reservation_lines, reservations, reservations.c.id == reservation_lines.c.reservation_id)
    .where(_takes_time)
)
#: The lines of all reservations that take time.
_lines = union_all(_first_lines, _further_lines).subquery("lines")

_is_its_line = and_(_lines.c.id == occupancies.c.reservation_id, _lines.c.position == occupancies.c.position)


def _not_occupied() -> Select[str]:
    """The reservations with a line whose time is not taken, or not as the line says."""
    agrees = and_(
        occupancies.c.item_id == _lines.c.item_id,
        occupancies.c.units == _lines.c.quantity,
        occupancies.c.blocked_from <= _lines.c.starts_at,
        occupancies.c.blocked_until >= _lines.c.ends_at,
    )
    joined = _lines.outerjoin(occupancies, _is_its_line)
    return select(cast(_lines.c.id, String)).distinct().select_from(joined).where(~func.coalesce(agrees, False))


def _freed() -> Select[str]:
    """The reservations that take time of which they have no line, or that have given it back."""
    joined = occupancies.outerjoin(_lines, _is_its_line)
    of = cast(occupancies.c.reservation_id, String)
    return select(of).distinct().select_from(joined).where(_lines.c.id.is_(None))


def _held_until_another_time() -> Select[str]:
    joined = occupancies.join(reservations, reservations.c.id == occupancies.c.reservation_id)
    differs = occupancies.c.held_until.is_distinct_from(case((is_hold, reservations.c.expires_at)))
    return select(cast(reservations.c.id, String)).distinct().select_from(joined).where(_takes_time, differs)


INVARIANTS = (
    Invariant("from now on, no more of a calendar is taken at any moment than its capacity", _above_capacity()),
    Invariant("every reservation that takes time of calendars occupies it, for each line", _not_occupied()),
    Invariant(
        "no time is occupied for a reservation that has given it back",
        _freed(),
        "A process of an earlier release leaves it so. When none runs any more, free the time by this:"
        " DELETE FROM calendar_occupancies USING reservations"
        " WHERE id = reservation_id AND status IN ('CANCELLED', 'EXPIRED', 'REJECTED')",
    ),
    Invariant(
        "occupied time lapses with its hold, and if there is no hold, never",
        _held_until_another_time(),
        "A process of an earlier release leaves it so. When none runs any more, correct it by this:"
        " UPDATE calendar_occupancies SET held_until = CASE status WHEN 'PENDING' THEN expires_at END"
        " FROM reservations WHERE id = reservation_id",
    ),
)
