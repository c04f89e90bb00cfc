"""What must hold at any moment, in any database: each law one query that finds what breaks it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import ColumnElement, Select, String, and_, case, cast, func, or_, select
from sqlalchemy.dialects.postgresql import ARRAY, aggregate_order_by
from sqlalchemy.orm import Session

from domain.items.table import items
from domain.outbox.delivery.lanes import LEASE
from domain.outbox.table import LANES, destinations, lanes, outbox, pending
from domain.reservations.lifecycle import CONSUMING, HOLDING
from domain.reservations.table import history, is_hold, reservations

#: How many culprits are named; the rest is counted.
NAMED = 5

#: A hold that is overdue by more than this has no sweeper behind it, in minutes.
SWEPT_WITHIN_MINUTES = 10

#: A promise that could leave and has not for longer than this has no worker behind it, in minutes.
LEAVES_WITHIN_MINUTES = 10

#: What a worker had in hand when an earlier promise was replayed has left after this, in minutes:
#: a batch begins no call or round after its first second, and none takes longer than a minute.
IN_HAND_MINUTES = 2


@dataclass(frozen=True, slots=True)
class Law:
    """`culprits` selects one text for each thing that breaks the law: none, if it holds.

    `advice` says what to do about them, where the law itself does not.
    """

    says: str
    culprits: Select[str]
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """How a law fares: how many break it, and the first few of them."""

    says: str
    broken: int
    named: Sequence[str]
    advice: str = ""


def examine(session: Session, *, routed: Collection[str] | None = None) -> Sequence[Finding]:
    """Check every law. Each is one query, so it sees one moment, whatever else is going on.

    With the names of the destinations that are `routed`, no other one may have promises to keep.
    """
    laws = LAWS if routed is None else (*LAWS, served_by(routed))
    return [_examine(session, law) for law in laws]


def _examine(session: Session, law: Law) -> Finding:
    found = session.execute(law.culprits).scalars().all()
    return Finding(law.says, len(found), found[:NAMED], law.advice)


def _stock() -> Select[str]:
    kept = case((reservations.c.status.in_([*HOLDING, *CONSUMING]), reservations.c.quantity), else_=0)
    used = select(reservations.c.item_id, func.sum(kept).label("quantity")).group_by(reservations.c.item_id).subquery()
    adds_up = items.c.stock_quantity == items.c.available_quantity + func.coalesce(used.c.quantity, 0)
    return select(items.c.sku).outerjoin(used, used.c.item_id == items.c.id).where(~adds_up)


def _history() -> Select[str]:
    newest_first = aggregate_order_by(history.c.to_status, history.c.id.desc())
    told = (
        select(
            history.c.reservation_id,
            func.count().label("steps"),
            func.array_agg(newest_first, type_=ARRAY(String))[1].label("last"),
        )
        .group_by(history.c.reservation_id)
        .subquery()
    )
    fits = and_(told.c.steps == reservations.c.version, told.c.last == reservations.c.status)
    joined = reservations.outerjoin(told, told.c.reservation_id == reservations.c.id)
    return select(cast(reservations.c.id, String)).select_from(joined).where(or_(told.c.steps.is_(None), ~fits))


def _order() -> Select[str]:
    """A row that left before an earlier one of its aggregate, which neither left nor died.

    Before that one was replayed, others may have left; afterwards they may not.
    """
    later = outbox.alias("later")
    in_hand_until = outbox.c.replayed_at + _minutes(IN_HAND_MINUTES)
    overtaken = (
        select(later.c.id)
        .where(later.c.destination == outbox.c.destination, later.c.aggregate_id == outbox.c.aggregate_id)
        .where(later.c.id > outbox.c.id, later.c.processed_at.is_not(None))
        .where(or_(outbox.c.replayed_at.is_(None), later.c.processed_at > in_hand_until))
        .exists()
    )
    return select(cast(outbox.c.id, String)).where(pending, overtaken)


def _homeless() -> Select[str]:
    known = select(lanes.c.destination).where(
        lanes.c.destination == outbox.c.destination, lanes.c.lane == outbox.c.lane
    )
    name = func.concat(outbox.c.destination, " (", func.count(), " rows)")
    return select(name).where(pending, ~known.exists()).group_by(outbox.c.destination)


def _lanes() -> Select[str]:
    return (
        select(destinations.c.name)
        .outerjoin(lanes, lanes.c.destination == destinations.c.name)
        .group_by(destinations.c.name)
        .having(func.count(lanes.c.lane) != LANES)
    )


def _leases() -> Select[str]:
    too_long = lanes.c.leased_until > func.clock_timestamp() + LEASE
    return select(func.concat(lanes.c.destination, "/", lanes.c.lane)).where(too_long)


def _overdue() -> Select[str]:
    limit = func.clock_timestamp() - _minutes(SWEPT_WITHIN_MINUTES)
    return select(cast(reservations.c.id, String)).where(is_hold, reservations.c.expires_at < limit)


def _stuck() -> Select[str]:
    """What is ready and untried for long, though its destination is open and was so all the while."""
    limit = func.clock_timestamp() - _minutes(LEAVES_WITHIN_MINUTES)
    ready_since = func.greatest(outbox.c.created_at, outbox.c.replayed_at, outbox.c.available_at)
    is_open = and_(
        ~destinations.c.paused,
        destinations.c.failures == 0,
        or_(destinations.c.recovered_at.is_(None), destinations.c.recovered_at < limit),
    )
    name = func.concat(destinations.c.name, " (", func.count(), " rows)")
    return (
        select(name)
        .join_from(outbox, destinations, destinations.c.name == outbox.c.destination)
        .where(pending, outbox.c.attempts == 0, ready_since < limit, is_open)
        .group_by(destinations.c.name)
    )


def served_by(routed: Collection[str]) -> Law:
    """A destination that was taken out of the routes while it has promises: they stay, and nobody keeps them."""
    name = func.concat(outbox.c.destination, " (", func.count(), " rows)")
    unserved = select(name).where(pending, outbox.c.destination.not_in(routed)).group_by(outbox.c.destination)
    return Law(
        "every destination with pending promises is in the routes",
        unserved.order_by(outbox.c.destination),
        'Put it back into the file that HOLDFAST_ROUTES names until its rows have left; with url = "null:" and'
        " events = [] they are let go of, unsent.",
    )


def _minutes(minutes: int) -> ColumnElement[timedelta]:
    return func.make_interval(0, 0, 0, 0, 0, minutes)


LAWS = (
    Law("every item's stock = available + held + consumed", _stock()),
    Law("every reservation's history leads to its status, a step a version", _history()),
    Law("no promise left before an earlier one of its reservation to the same destination", _order()),
    Law("every pending promise has a lane to leave by", _homeless()),
    Law("every destination has all its lanes", _lanes()),
    Law("no lane is leased for longer than a lease", _leases()),
    Law(
        f"no promise to a destination that is up has been ready for {LEAVES_WITHIN_MINUTES} minutes",
        _stuck(),
        "Is a worker running? bin/why EVENT_ID says what is in the way.",
    ),
    Law(f"no hold is overdue by more than {SWEPT_WITHIN_MINUTES} minutes", _overdue()),
)
