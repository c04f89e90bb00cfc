"""Outages: they spend no attempt, kill no event and change no order, however often they come."""

import time

from domain.outbox import Cause, Delivered, Outcome, Row, Unreachable
from domain.outbox.delivery.history import RECOVERED_AFTER
from tests.conftest import OpenRelay
from tests.support.outbox import (
    DOWN,
    FakeDestination,
    an_aggregate,
    destination,
    recorded_for,
    row,
    rows,
    states,
    time_passes,
)
from worker.relay.tally import Tally


def test_an_outage_spends_no_attempt_kills_no_event_and_keeps_the_order(relay_to: OpenRelay) -> None:
    server = FakeDestination(lambda _: Unreachable("down"))
    relay = relay_to(server, max_attempts=1, batch_size=2)
    aggregates = [an_aggregate(lane) for lane in (0, 0, 1)]
    ids = recorded_for(relay.db, *(aggregates * 3))
    for _ in range(20):
        relay.run()
        time_passes(relay.db)
    assert all((one.attempts, one.dead_at) == (0, None) for one in rows(relay.db))
    server.answer = lambda _: Delivered()
    server.called.clear()

    while relay.run() != Tally():
        time_passes(relay.db)

    by_aggregate = [ids[number :: len(aggregates)] for number in range(len(aggregates))]
    assert [[one for one in server.called if one in of_one] for of_one in by_aggregate] == by_aggregate
    assert sorted(server.called) == ids


def test_an_outage_is_probed_with_one_row_at_a_time(relay_to: OpenRelay) -> None:
    def slowly(_: Row) -> Outcome:
        time.sleep(0.05)  # long enough for as many calls as may be in flight at once
        return DOWN

    server = FakeDestination(slowly, concurrency=8)
    relay = relay_to(server)
    recorded_for(relay.db, *(an_aggregate(lane) for lane in (0, 1, 2) for _ in range(20)))
    relay.run()
    server.called.clear()
    time_passes(relay.db)

    relay.run()

    assert len(server.called) == 1
    assert destination(relay.db).failures == 2


def test_outages_that_come_again_and_again_kill_no_event(relay_to: OpenRelay) -> None:
    """The service works for a moment now and then, as one that keeps crashing does."""
    server = FakeDestination()
    relay = relay_to(server, max_attempts=3)
    recorded_for(relay.db, *(an_aggregate(lane) for lane in (0, 0, 1, 1)))
    server.answer = lambda _: Unreachable("down")
    relay.run()
    time_passes(relay.db)
    answers: list[Outcome] = [Delivered()]
    server.answer = lambda _: answers.pop() if answers else Unreachable("down")

    for _ in range(20):
        relay.run()
        time_passes(relay.db)

    assert "dead" not in states(relay.db)


def test_one_event_that_breaks_its_consumer_dies_alone(relay_to: OpenRelay) -> None:
    server = FakeDestination()
    relay = relay_to(server, max_attempts=3)
    (bad,) = recorded_for(relay.db, an_aggregate(1))
    server.failures[bad] = Unreachable("500", cause=Cause.ERROR)

    for _ in range(12):
        recorded_for(relay.db, an_aggregate(1), an_aggregate(2))
        relay.run()
        time_passes(relay.db)

    assert states(relay.db) == ["dead"] + ["processed"] * 24
    assert destination(relay.db).failures == 0


def test_a_row_that_was_not_sent_because_of_another_one_is_not_overtaken(relay_to: OpenRelay) -> None:
    server = FakeDestination()
    relay = relay_to(server, batch_size=2)
    a, b = an_aggregate(0), an_aggregate(0)
    bad, first, second = recorded_for(relay.db, a, b, b)
    server.failures[bad] = Unreachable("500")
    relay.run()
    (recovering,) = recorded_for(relay.db, an_aggregate(3))
    time_passes(relay.db)

    relay.run()

    assert server.called[:4] == [bad, recovering, bad, first]
    assert [one for one in server.called if one in (first, second)] == [first, second]


def test_after_an_outage_no_row_is_at_fault_before_the_destination_has_recovered(relay_to: OpenRelay) -> None:
    server = FakeDestination()
    relay = relay_to(server)
    (bad,) = recorded_for(relay.db, an_aggregate(0))
    server.failures[bad] = DOWN
    relay.run()
    for _ in range(3):
        recorded_for(relay.db, *(an_aggregate(1) for _ in range(RECOVERED_AFTER // 4)))
        time_passes(relay.db)
        relay.run()
        assert row(relay.db, bad).attempts == 0

    recorded_for(relay.db, *(an_aggregate(1) for _ in range(RECOVERED_AFTER)))
    relay.run()
    time_passes(relay.db)
    relay.run()

    assert row(relay.db, bad).attempts == 1
    assert destination(relay.db).failures == 0
