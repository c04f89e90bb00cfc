"""The invariants of the outbox."""

from collections.abc import Collection
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, CompoundSelect, Select, String, and_, cast, func, or_, select, union_all

from domain.access.audit import audit_entries
from domain.invariants.invariant import Invariant, minutes
from domain.outbox.delivery import low_watermark
from domain.outbox.delivery.fetch import LONGEST_WAIT
from domain.outbox.delivery.lanes import LEASE
from domain.outbox.table import LANES, destinations, lanes, outbox, pending, waiting

#: An event that can be delivered is delivered within this time, in minutes, or no worker serves its destination.
DELIVERED_WITHIN_MINUTES = 10

#: A worker that runs claims each lane with due rows within this time, in minutes.
CLAIMED_WITHIN_MINUTES = 10

#: The rows that were in flight when an earlier event was replayed are delivered after this time, in minutes:
#: a batch begins no call after its first second, and no call takes longer than a minute.
IN_FLIGHT_MINUTES = 2

#: The rows of one batch are settled within this time, in any order.
SETTLED_WITHIN = timedelta(seconds=1)


def _overtaken() -> CompoundSelect[str]:
    return union_all(_overtaken_and_pending(), _overtaken_and_delivered())


def _overtaken_and_pending() -> Select[str]:
    """The pending rows that a later row of their aggregate has overtaken.

    Rows that were delivered before an earlier row was replayed have not overtaken it.
    """
    later = outbox.alias("later")
    in_flight_until = outbox.c.replayed_at + minutes(IN_FLIGHT_MINUTES)
    overtaken = (
        select(later.c.id)
        .where(later.c.destination == outbox.c.destination, later.c.aggregate_id == outbox.c.aggregate_id)
        .where(later.c.id > outbox.c.id, later.c.processed_at.is_not(None))
        .where(or_(outbox.c.replayed_at.is_(None), later.c.processed_at > in_flight_until))
        .exists()
    )
    return select(cast(outbox.c.id, String)).where(pending, overtaken)


def _overtaken_and_delivered() -> Select[str]:
    """The rows that were delivered after the next row of their aggregate, by more than a batch takes to be settled.

    A replayed row is left out: it is delivered a second time. If the clock has stepped back between two rows, their
    times show nothing.
    """
    rows = (
        select(
            outbox.c.id,
            outbox.c.created_at,
            outbox.c.processed_at,
            _of_next(outbox.c.created_at).label("next_created_at"),
            _of_next(outbox.c.processed_at).label("next_processed_at"),
        )
        .where(outbox.c.processed_at.is_not(None), outbox.c.replayed_at.is_(None))
        .subquery("rows")
    )
    return (
        select(cast(rows.c.id, String))
        .where(rows.c.next_processed_at < rows.c.processed_at - SETTLED_WITHIN)
        .where(rows.c.next_created_at >= rows.c.created_at, rows.c.next_processed_at >= rows.c.next_created_at)
    )


def _of_next(column: ColumnElement[datetime]) -> ColumnElement[datetime]:
    # By the aggregate first, which takes a third less time: names are compared by the rules of a language.
    its_aggregate = outbox.c.aggregate_id, outbox.c.destination
    return func.lead(column).over(partition_by=its_aggregate, order_by=outbox.c.id)


def _unregistered() -> Select[str]:
    known = select(lanes.c.destination).where(
        lanes.c.destination == outbox.c.destination, lanes.c.lane == outbox.c.lane
    )
    name = func.concat(outbox.c.destination, " (", func.count(), " rows)")
    return select(name).where(pending, ~known.exists()).group_by(outbox.c.destination)


def _without_all_lanes() -> Select[str]:
    return (
        select(destinations.c.name)
        .outerjoin(lanes, lanes.c.destination == destinations.c.name)
        .group_by(destinations.c.name)
        .having(func.count(lanes.c.lane) != LANES)
    )


def _leased_for_too_long() -> Select[str]:
    too_long = lanes.c.leased_until > func.clock_timestamp() + LEASE
    return select(func.concat(lanes.c.destination, "/", lanes.c.lane)).where(too_long)


def _not_delivered() -> Select[str]:
    """Destinations with rows that were ready and untried for long, though the destination was up all the time."""
    limit = func.clock_timestamp() - minutes(DELIVERED_WITHIN_MINUTES)
    ready_since = func.greatest(outbox.c.created_at, outbox.c.replayed_at, outbox.c.available_at)
    is_up = and_(
        ~destinations.c.paused,
        destinations.c.failures == 0,
        or_(destinations.c.recovered_at.is_(None), destinations.c.recovered_at < limit),
    )
    name = func.concat(destinations.c.name, " (", func.count(), " rows)")
    return (
        select(name)
        .join_from(outbox, destinations, destinations.c.name == outbox.c.destination)
        .where(pending, outbox.c.attempts == 0, ready_since < limit, is_up)
        .group_by(destinations.c.name)
    )


def _not_claimed() -> Select[str]:
    """The destinations with lanes that no worker has claimed for long, though they had due rows all the time.

    A worker that probes a destination that is down sets its next probe anew each time. So a probe that was due for long
    shows that nobody probes.
    """
    limit = func.clock_timestamp() - minutes(CLAIMED_WITHIN_MINUTES)
    is_of_lane = and_(outbox.c.destination == lanes.c.destination, outbox.c.lane == lanes.c.lane)
    is_due = func.greatest(outbox.c.created_at, outbox.c.replayed_at, outbox.c.available_at) < limit
    has_due = select(outbox.c.id).where(pending, is_of_lane, is_due).exists()
    resumed = (
        select(audit_entries.c.id)
        .where(audit_entries.c.action == "resume", audit_entries.c.happened_at >= limit)
        .where(audit_entries.c.selection["destination"].astext == destinations.c.name)
        .exists()
    )
    return (
        select(func.concat(destinations.c.name, " (", func.count(), " lanes)"))
        .join_from(lanes, destinations, destinations.c.name == lanes.c.destination)
        .where(or_(lanes.c.leased_until.is_(None), lanes.c.leased_until < limit), has_due)
        .where(~destinations.c.paused, ~resumed)
        .where(or_(destinations.c.open_until.is_(None), destinations.c.open_until < limit))
        .group_by(destinations.c.name)
        .order_by(destinations.c.name)
    )


def _below_low_watermark() -> Select[str]:
    return select(func.concat(lanes.c.destination, "/", lanes.c.lane)).where(low_watermark.has_ready_below)


def _waits_too_long() -> Select[str]:
    too_late = outbox.c.available_at > func.clock_timestamp() + LONGEST_WAIT
    return select(cast(outbox.c.id, String)).where(waiting, too_late)


def routed_only(routed: Collection[str]) -> Invariant:
    """No other destinations than the `routed` ones have pending rows: nobody would deliver them."""
    name = func.concat(outbox.c.destination, " (", func.count(), " rows)")
    unrouted = select(name).where(pending, outbox.c.destination.not_in(routed)).group_by(outbox.c.destination)
    return Invariant(
        "every destination with pending events is in the routes",
        unrouted.order_by(outbox.c.destination),
        "Put it back into the file that HOLDFAST_ROUTES names until its events are delivered; to drop them unsent,"
        ' give it url = "null:" and events = [].',
        misses="Destinations that are in the routes of this command and not in those of the workers, or the reverse.",
    )


INVARIANTS = (
    Invariant(
        "no event was delivered before an earlier event of its reservation to the same destination",
        _overtaken(),
        "These are numbers of rows of the table outbox. Tell the consumer, who may have applied changes in the wrong"
        " order, the reservations in their aggregate_id; and tell us: this must not happen.",
        misses="An overtaking by less than a second, one of rows that were replayed or died since, one while the clock"
        " stepped back, and rows that were pruned.",
    ),
    Invariant(
        "every pending event belongs to a registered lane",
        _unregistered(),
        "No worker has ever served these destinations, so nobody delivers their events. Start a worker that has them in"
        " its routes.",
        misses="A lane that is registered and that no worker serves: another check finds it.",
    ),
    Invariant(
        "every destination has all its lanes",
        _without_all_lanes(),
        "The events of the missing lanes are not delivered. Restart a worker: it registers them again.",
        misses="Lanes that are too many for the release: the table refuses them.",
    ),
    Invariant(
        "no lane is leased for longer than a lease",
        _leased_for_too_long(),
        "The clock of PostgreSQL has stepped back. Nothing is to be done: such a lane counts as free.",
        misses="A step by less than what was left of the lease.",
    ),
    Invariant(
        f"no lane with due events has been left unclaimed for {CLAIMED_WITHIN_MINUTES} minutes",
        _not_claimed(),
        "No worker serves these destinations, so their events wait for ever. Start one with bin/worker, or deliver once"
        " with bin/process-outbox; if one runs, see its log and whether its HOLDFAST_ROUTES has them.",
        misses="What became due, was resumed or was probed within that time, and workers that claim and then deliver"
        " nothing.",
    ),
    Invariant(
        f"no event for a destination that is up has been ready for {DELIVERED_WITHIN_MINUTES} minutes",
        _not_delivered(),
        "Workers are too few, too slow or not running. bin/destinations list shows the backlog, and bin/why EVENT_ID"
        " says why an event is not delivered.",
        misses="Events that have spent an attempt, and those for a destination that is down or was within that time.",
    ),
    Invariant(
        "no ready event is below the low watermark of its lane",
        _below_low_watermark(),
        "No claim sees these events. The maintenance of the workers corrects it every 5 minutes; without workers, do it"
        " by this: UPDATE outbox_lanes SET low_watermark = 0",
        misses="Waiting events: they are read from the beginning of the lane when they become due.",
    ),
    Invariant(
        "no event waits for longer than a day for its next attempt",
        _waits_too_long(),
        "The clock of PostgreSQL has stepped back since they were tried. The maintenance of the workers makes them due"
        " every 5 minutes; without workers, do it by this:"
        " UPDATE outbox SET available_at = now() WHERE available_at > now() + interval '1 day'",
        misses="Waits that a step of the clock has made longer, but not longer than a day.",
    ),
)
