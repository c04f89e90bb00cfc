"""The invariants of the outbox: no event is overtaken, undeliverable or forgotten, and no lane is leased for long."""

import pytest

from domain import invariants
from domain.invariants.outbox import INVARIANTS
from tests.support.builders import Db, an_event, recorded
from tests.support.invariants import Violation, execute, violations
from tests.support.outbox import FakeDestination, an_aggregate, recorded_for, relaying
from worker.maintenance import reset_low_watermarks

ORDER, REGISTERED, LANES, LEASES, CLAIMED, DELIVERED, WATERMARK, WAITS = (invariant.title for invariant in INVARIANTS)

#: Nobody has claimed a lane for a day, and its rows have been due for as long.
NO_WORKER_FOR_A_DAY = "UPDATE outbox SET created_at = now() - interval '1 day', available_at = now() - interval '1 day'"

VIOLATIONS: list[Violation] = [
    (ORDER, "UPDATE outbox SET processed_at = now() WHERE type = 'booking.cancelled'"),
    (
        REGISTERED,
        "DELETE FROM outbox_lanes WHERE destination = 'events'; DELETE FROM outbox_destinations WHERE name = 'events'",
    ),
    (LANES, "DELETE FROM outbox_lanes WHERE lane = 31; UPDATE outbox SET processed_at = now()"),
    (LEASES, "UPDATE outbox_lanes SET leased_until = now() + interval '1 hour' WHERE lane = 3"),
    (CLAIMED, f"{NO_WORKER_FOR_A_DAY}, attempts = 1"),
    (
        DELIVERED,
        "UPDATE outbox SET created_at = now() - interval '11 minutes' WHERE destination = 'events';"
        " UPDATE outbox_lanes SET leased_until = now()",
    ),
    (WATERMARK, "UPDATE outbox_lanes SET low_watermark = 1000"),
    (WAITS, "UPDATE outbox SET available_at = now() + interval '2 days' WHERE destination = 'events'"),
]


@pytest.mark.parametrize(("invariant", "statement"), VIOLATIONS)
def test_a_violation_is_found_and_no_other(used: Db, invariant: str, statement: str) -> None:
    execute(used, statement)

    assert list(violations(used)) == [invariant]


def test_an_event_may_be_delivered_before_an_earlier_one_that_is_dead_or_of_another_aggregate(db: Db) -> None:
    recorded(db, *(an_event(one) for one in (an_aggregate(), an_aggregate())))
    execute(db, "UPDATE outbox SET processed_at = now() WHERE id = 2")
    assert violations(db) == {}

    aggregate = an_aggregate()
    recorded(db, *(an_event(aggregate) for _ in range(3)))
    execute(
        db,
        "UPDATE outbox SET dead_at = now() WHERE id = 3",
        "UPDATE outbox SET processed_at = now() WHERE id = 4",
    )
    assert violations(db) == {}


REPLAYED_LATELY = "UPDATE outbox SET replayed_at = now() - interval '1 second' WHERE processed_at IS NULL"
REPLAYED_LONG_AGO = "UPDATE outbox SET replayed_at = now() - interval '3 minutes' WHERE processed_at IS NULL"


@pytest.mark.parametrize(("replayed", "violated"), [(REPLAYED_LATELY, []), (REPLAYED_LONG_AGO, [ORDER])])
def test_an_event_that_was_delivered_before_an_earlier_one_was_replayed_has_not_overtaken_it(
    used: Db, replayed: str, violated: list[str]
) -> None:
    execute(used, "UPDATE outbox SET processed_at = now() WHERE type = 'booking.cancelled'", replayed)

    assert list(violations(used)) == violated


def test_a_replayed_event_that_nobody_delivers_is_found_after_a_while(used: Db) -> None:
    replayed = "UPDATE outbox SET created_at = '2020-01-01', replayed_at = now() - interval '{0}', available_at = {1}"
    execute(used, replayed.format("9 minutes", "NULL"))
    assert violations(used) == {}

    execute(used, replayed.format("11 minutes", "now() - interval '11 minutes'"))
    assert list(violations(used)) == [CLAIMED, DELIVERED]


@pytest.mark.parametrize(
    "reason",
    [
        "UPDATE outbox_destinations SET paused = true",
        "UPDATE outbox_destinations SET failures = 1",
        "UPDATE outbox_destinations SET recovered_at = now()",
        "UPDATE outbox SET attempts = 1",
        "UPDATE outbox SET available_at = now()",
    ],
)
def test_an_event_that_can_not_be_delivered_yet_is_no_violation(used: Db, reason: str) -> None:
    execute(used, "UPDATE outbox_lanes SET leased_until = now()")
    execute(used, "UPDATE outbox SET created_at = now() - interval '11 minutes'", reason)

    assert violations(used) == {}


@pytest.mark.parametrize(
    "state",
    [
        "UPDATE outbox_destinations SET failures = 3, opened_at = now() - interval '1 day',"
        " open_until = now() - interval '1 day'",
        "UPDATE outbox SET attempts = 1",
        "UPDATE outbox_lanes SET leased_until = now() - interval '1 day', holder = 'killed'",
    ],
    ids=["the breaker was open when the last worker ended", "an attempt was spent", "the last worker was killed"],
)
def test_rows_that_no_worker_has_claimed_for_a_day_are_found_whatever_state_they_were_left_in(
    used: Db, state: str
) -> None:
    execute(used, NO_WORKER_FOR_A_DAY, state)

    assert violations(used)[CLAIMED] == 2, "two destinations have events"


@pytest.mark.parametrize(
    "reason",
    [
        "UPDATE outbox_destinations SET paused = true",
        "UPDATE outbox_destinations SET failures = 3, open_until = now() + interval '5 seconds'",
        "INSERT INTO audit_entries (action, who, why, selection) SELECT 'resume', 'ann', 'test',"
        " jsonb_build_object('destination', name) FROM outbox_destinations",
        "UPDATE outbox_lanes SET leased_until = now() - interval '1 minute'",
        "UPDATE outbox SET available_at = now() + interval '1 minute'",
        "UPDATE outbox SET replayed_at = now() - interval '1 minute'",
    ],
    ids=["paused", "just probed", "just resumed", "just claimed", "not due", "just replayed"],
)
def test_a_lane_that_no_worker_had_to_claim_is_no_violation(used: Db, reason: str) -> None:
    execute(used, f"{NO_WORKER_FOR_A_DAY}, attempts = 1", reason)

    assert CLAIMED not in violations(used)


def an_overtaking(db: Db, *changes: str) -> Db:
    """Three delivered events of one reservation, of which the first was delivered an hour after the others."""
    aggregate = an_aggregate()
    recorded(db, *(an_event(aggregate) for _ in range(3)))
    execute(
        db,
        "UPDATE outbox SET created_at = created_at - interval '3 hours', processed_at = now() - interval '2 hours'",
        "UPDATE outbox SET processed_at = now() - interval '1 hour' WHERE id = 1",
        *changes,
    )
    return db


def test_an_overtaking_that_is_over_is_found(db: Db) -> None:
    assert violations(an_overtaking(db)) == {ORDER: 1}


@pytest.mark.parametrize(
    "reason",
    [
        "UPDATE outbox SET replayed_at = now() - interval '90 minutes' WHERE id = 1",
        "UPDATE outbox SET processed_at = now() - interval '2 hours' + id * interval '-10 ms'",
        "UPDATE outbox SET aggregate_id = gen_random_uuid() WHERE id = 1",
        "UPDATE outbox SET destination = 'confirmation' WHERE id = 1",
        "UPDATE outbox SET dead_at = processed_at, processed_at = NULL WHERE id = 1",
        "UPDATE outbox SET created_at = now() - interval '90 minutes' WHERE id > 1",
        "UPDATE outbox SET created_at = created_at + interval '1 year'",
    ],
    ids=[
        "replayed since",
        "settled together",
        "of another reservation",
        "to another destination",
        "a dead letter",
        "the clock stepped back before the delivery of the later ones",
        "the clock stepped back before all deliveries",
    ],
)
def test_what_is_no_overtaking_is_not_found(db: Db, reason: str) -> None:
    assert violations(an_overtaking(db, reason)) == {}


def test_what_maintenance_corrects_is_not_found_afterwards(used: Db) -> None:
    execute(
        used,
        "UPDATE outbox_lanes SET low_watermark = 1000",
        "UPDATE outbox SET available_at = now() + interval '2 days' WHERE destination = 'events'",
    )
    assert set(violations(used)) == {WATERMARK, WAITS}

    reset_low_watermarks(used)

    assert violations(used) == {}


def test_every_invariant_holds_when_all_events_are_delivered(db: Db) -> None:
    with relaying(db, FakeDestination()) as relay:
        recorded_for(relay.db, *(an_aggregate(lane) for lane in range(5)))
        relay.run()

    assert violations(db) == {}


def test_a_destination_that_is_not_in_the_routes_must_have_no_pending_event(used: Db) -> None:
    with used.begin() as session:
        *_, routed = invariants.examine(session, routed=["confirmation"])
    assert (routed.violations, len(routed.named)) == (1, 1)
    assert routed.named[0].startswith("events (")

    with used.begin() as session:
        *_, routed = invariants.examine(session, routed=["confirmation", "events"])
    assert (routed.violations, routed.named) == (0, [])
