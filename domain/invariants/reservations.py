"""The invariants of reservations."""

from sqlalchemy import Select, String, and_, case, cast, func, not_, or_, select, true
from sqlalchemy.dialects.postgresql import ARRAY, aggregate_order_by

from domain.invariants.invariant import Invariant, minutes
from domain.reservations.table import history, is_hold, reservation_lines, reservations

#: Maintenance expires a hold within this time, in minutes. One that is overdue for longer was seen by no worker.
EXPIRED_WITHIN_MINUTES = 10


def _history_and_status_differ() -> Select[str]:
    newest_first = aggregate_order_by(history.c.to_status, history.c.id.desc())
    recorded = (
        select(
            history.c.reservation_id,
            func.count().label("steps"),
            func.array_agg(newest_first, type_=ARRAY(String))[1].label("last"),
        )
        .group_by(history.c.reservation_id)
        .subquery()
    )
    agrees = and_(recorded.c.steps == reservations.c.version, recorded.c.last == reservations.c.status)
    joined = reservations.outerjoin(recorded, recorded.c.reservation_id == reservations.c.id)
    return select(cast(reservations.c.id, String)).select_from(joined).where(or_(recorded.c.steps.is_(None), ~agrees))


def _lines_differ() -> Select[str]:
    """The reservations with another number of lines than they count, or with lines for another time."""
    held_until = case((and_(is_hold, reservations.c.starts_at.is_(None)), reservations.c.expires_at))
    agrees = and_(
        reservation_lines.c.held_until.is_not_distinct_from(held_until),
        reservation_lines.c.starts_at.is_not_distinct_from(reservations.c.starts_at),
        reservation_lines.c.ends_at.is_not_distinct_from(reservations.c.ends_at),
    )
    found = (
        select(func.count().label("lines"), func.bool_and(agrees).label("agree"))
        .where(reservation_lines.c.reservation_id == reservations.c.id)
        .lateral("found")
    )
    differs = or_(reservations.c.line_count != found.c.lines + 1, not_(found.c.agree))
    joined = reservations.join(found, true())
    return select(cast(reservations.c.id, String)).select_from(joined).where(differs)


def _overdue() -> Select[str]:
    limit = func.clock_timestamp() - minutes(EXPIRED_WITHIN_MINUTES)
    return select(cast(reservations.c.id, String)).where(is_hold, reservations.c.expires_at < limit)


INVARIANTS = (
    Invariant(
        "every reservation's history ends with its status and has one entry for each version",
        _history_and_status_differ(),
        misses="An entry that says something else than what happened, if the number of entries and the last one agree.",
    ),
    Invariant(
        "every reservation has as many lines as `line_count` says, each for its period or until it expires",
        _lines_differ(),
        misses="A line with a wrong item or quantity: for stock, the sum of its item shows it.",
    ),
    Invariant(
        f"no hold is overdue by more than {EXPIRED_WITHIN_MINUTES} minutes",
        _overdue(),
        "Is a worker running? bin/expire-reservations expires them now.",
        misses="Holds that were overdue for long and have been expired since, and those that lapsed lately.",
    ),
)
