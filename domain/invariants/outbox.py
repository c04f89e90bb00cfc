"""The invariants of the outbox."""

from collections.abc import Collection

from sqlalchemy import Select, String, and_, cast, func, or_, select

from domain.invariants.invariant import Invariant, minutes
from domain.outbox.delivery.lanes import LEASE
from domain.outbox.table import LANES, destinations, lanes, outbox, pending

#: An event that can be delivered is delivered within this time, in minutes, or no worker serves its destination.
DELIVERED_WITHIN_MINUTES = 10

#: The rows that were in flight when an earlier event was replayed are delivered after this time, in minutes:
#: a batch begins no call after its first second, and no call takes longer than a minute.
IN_FLIGHT_MINUTES = 2


def _overtaken() -> Select[str]:
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


def routed_only(routed: Collection[str]) -> Invariant:
    """No other destinations than the `routed` ones have pending rows: nobody would deliver them."""
    name = func.concat(outbox.c.destination, " (", func.count(), " rows)")
    unrouted = select(name).where(pending, outbox.c.destination.not_in(routed)).group_by(outbox.c.destination)
    return Invariant(
        "every destination with pending events is in the routes",
        unrouted.order_by(outbox.c.destination),
        "Put it back into the file that HOLDFAST_ROUTES names until its events are delivered; to drop them unsent,"
        ' give it url = "null:" and events = [].',
    )


INVARIANTS = (
    Invariant(
        "no event was delivered before an earlier event of its reservation to the same destination", _overtaken()
    ),
    Invariant("every pending event belongs to a registered lane", _unregistered()),
    Invariant("every destination has all its lanes", _without_all_lanes()),
    Invariant("no lane is leased for longer than a lease", _leased_for_too_long()),
    Invariant(
        f"no event for a destination that is up has been ready for {DELIVERED_WITHIN_MINUTES} minutes",
        _not_delivered(),
        "Is a worker running? bin/why EVENT_ID says why an event is not delivered.",
    ),
)
