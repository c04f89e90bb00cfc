"""The invariants of calendars.

An occupancy has at least the period of its reservation, and at most the longest buffers around it. It has exactly the
buffers of its calendar if the reservation was made (`created_at`) after the last change of the calendar (`updated_at`):
both happen under the lock of the calendar. An older reservation may have buffers that the calendar had before.
"""

from datetime import timedelta

from sqlalchemy import (
    ColumnElement,
    Select,
    String,
    and_,
    case,
    cast,
    column,
    func,
    literal,
    not_,
    or_,
    select,
    table,
    union_all,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import AddConstraint

from domain.calendars.settings import MAX_BUFFER_SECONDS
from domain.calendars.table import TIME_IS_EXCLUSIVE, occupancies, time_is_exclusive
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
_times = reservations.c["starts_at", "ends_at", "created_at"]
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
    """The reservations with a line whose time is not taken, or not as the line and its calendar say."""
    agrees = and_(
        occupancies.c.item_id == _lines.c.item_id,
        occupancies.c.units == _lines.c.quantity,
        occupancies.c.blocked_from.between(_lines.c.starts_at - _LONGEST_BUFFER, _lines.c.starts_at),
        occupancies.c.blocked_until.between(_lines.c.ends_at, _lines.c.ends_at + _LONGEST_BUFFER),
        or_(_lines.c.created_at <= items.c.updated_at, _has_its_buffers()),
    )
    joined = _lines.join(items, items.c.id == _lines.c.item_id).outerjoin(occupancies, _is_its_line)
    return select(cast(_lines.c.id, String)).distinct().select_from(joined).where(~func.coalesce(agrees, False))


_LONGEST_BUFFER = timedelta(seconds=MAX_BUFFER_SECONDS)


def _has_its_buffers() -> ColumnElement[bool]:
    before, after = (
        func.make_interval(0, 0, 0, 0, 0, 0, seconds)
        for seconds in (items.c.buffer_before_seconds, items.c.buffer_after_seconds)
    )
    return and_(
        occupancies.c.blocked_from == _lines.c.starts_at - before,
        occupancies.c.blocked_until == _lines.c.ends_at + after,
    )


def _freed() -> Select[str]:
    """The reservations that take time of which they have no line, or that have given it back."""
    joined = occupancies.outerjoin(_lines, _is_its_line)
    of = cast(occupancies.c.reservation_id, String)
    return select(of).distinct().select_from(joined).where(_lines.c.id.is_(None))


def _held_until_another_time() -> Select[str]:
    joined = occupancies.join(reservations, reservations.c.id == occupancies.c.reservation_id)
    differs = occupancies.c.held_until.is_distinct_from(case((is_hold, reservations.c.expires_at)))
    return select(cast(reservations.c.id, String)).distinct().select_from(joined).where(_takes_time, differs)


def _not_exclusive() -> Select[str]:
    """The calendars of capacity 1 with time that the constraint does not guard, though it is not over."""
    is_unguarded = and_(not_(occupancies.c.is_exclusive), occupancies.c.blocked_until > _now)
    joined = items.join(occupancies, occupancies.c.item_id == items.c.id)
    found = select(items.c.sku).distinct().select_from(joined)
    return found.where(items.c.capacity == 1, is_unguarded).order_by(items.c.sku)


def _without_constraint() -> Select[str]:
    """The constraint, if the table does not have it."""
    constraints = table("pg_constraint", column("conname"), column("contype"), column("conrelid"))
    of_table = constraints.c.conrelid == func.to_regclass(occupancies.name)
    found = select(constraints).where(
        of_table, constraints.c.contype == "x", constraints.c.conname == TIME_IS_EXCLUSIVE
    )
    return select(literal(TIME_IS_EXCLUSIVE)).where(~found.exists())


_ADD_CONSTRAINT = str(
    AddConstraint(time_is_exclusive, isolate_from_table=False).compile(dialect=postgresql.dialect())  # type: ignore[no-untyped-call]
)

INVARIANTS = (
    Invariant(
        "from now on, no more of a calendar is taken at any moment than its capacity",
        _above_capacity(),
        "Cancel or move reservations of that time, or give the calendar more capacity by PATCH /items/SKU."
        " GET /reservations?sku=SKU&ends_after=TIME&starts_before=TIME lists them.",
        misses="What was taken in the past, and reservations whose time is not occupied: another check finds these.",
    ),
    Invariant(
        "every reservation that takes time of calendars occupies it, for each line, with its buffers and no more",
        _not_occupied(),
        "Write the time of these reservations anew, with the statement of docs/operating.md, “Time that does not agree"
        " with its reservation”.",
        misses="On a calendar that was changed since the reservation was made, buffers that are wrong by less than a"
        " day.",
    ),
    Invariant(
        "no time is occupied without a line of a reservation that takes it",
        _freed(),
        "A process of an earlier release leaves the time of what it cancels so. When none runs any more, free the time"
        " by this: DELETE FROM calendar_occupancies AS taken WHERE NOT EXISTS (SELECT FROM reservations WHERE"
        " id = reservation_id AND starts_at IS NOT NULL AND status NOT IN ('CANCELLED', 'EXPIRED', 'REJECTED')"
        " AND (position = 1 OR EXISTS (SELECT FROM reservation_lines AS line"
        " WHERE line.reservation_id = taken.reservation_id AND line.position = taken.position)))",
        misses="Time that is occupied for a line, but is not the time of that line: another check finds it.",
    ),
    Invariant(
        "occupied time lapses with its hold, and if there is no hold, never",
        _held_until_another_time(),
        "A process of an earlier release leaves it so. When none runs any more, correct it by this:"
        " UPDATE calendar_occupancies SET held_until = CASE status WHEN 'PENDING' THEN expires_at END"
        " FROM reservations WHERE id = reservation_id",
        misses="A hold that has a wrong end itself.",
    ),
    Invariant(
        "what is taken of a calendar of capacity 1 from now on is exclusive",
        _not_exclusive(),
        "Only the lock of the calendar keeps this time from being taken twice. Set the capacity once more, and the"
        ' constraint guards it as well: PATCH /items/SKU with {"capacity": 1}.',
        misses="Calendars of a greater capacity, whose time no constraint guards.",
    ),
    Invariant(
        "the constraint that guards exclusive time is there",
        _without_constraint(),
        "Only the locks of calendars keep time from being taken twice. If PostgreSQL answers that times overlap, cancel"
        f" one of the two reservations first. Put the constraint back by this: {_ADD_CONSTRAINT}",
        misses="A constraint of the same name that guards something else.",
    ),
)
