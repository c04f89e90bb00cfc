"""Every destination in every trouble: nothing is lost, nothing overtakes, and what is in doubt is sent again."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from threading import Thread
from typing import Any

import pytest

from domain.outbox.delivery.history import TAKEN_FOR_EACH_REFUSED
from domain.outbox.table import LANES
from tests.conformance.environment import Environment, an_environment
from tests.conformance.harness import AMBIGUOUS, Trouble
from tests.conformance.harnesses import HARNESSES, possible
from tests.support.builders import Db
from tests.support.outbox import an_aggregate, rows, states, time_passes
from tests.support.waiting import wait_until

#: Each message of a batch of three aggregates with three events each.
POSITIONS = range(1, 10)

Open = Callable[..., Environment]


@pytest.fixture
def open_environment(db: Db) -> Iterator[Open]:
    """Open environments with the harness of this name. They are closed after the test."""
    with ExitStack() as stack:

        def opened(name: str, **route: Any) -> Environment:
            harness = HARNESSES[name]()
            stack.callback(harness.close)
            return stack.enter_context(an_environment(db, harness, **route))

        yield opened


@pytest.mark.parametrize("name", HARNESSES)
def test_each_event_is_taken_once_and_in_order(open_environment: Open, name: str) -> None:
    environment = open_environment(name, batch_size=4)
    environment.record()

    environment.relay.run()

    environment.check_that_nothing_is_lost()
    environment.check_that_nothing_is_repeated()


@pytest.mark.parametrize("name", HARNESSES)
def test_several_threads_may_deliver_at_once(open_environment: Open, name: str) -> None:
    aggregates = [an_aggregate(lane) for lane in range(LANES)]
    environment = open_environment(name, aggregates=aggregates, batch_size=7)
    environment.record(each=5)

    threads = [Thread(target=environment.relay.run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    environment.check_that_nothing_is_lost()
    environment.check_that_nothing_is_repeated()


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize(("name", "trouble"), possible(Trouble.REFUSES))
def test_a_message_that_is_refused_dies_alone(
    open_environment: Open, name: str, trouble: Trouble, position: int
) -> None:
    environment = open_environment(name)
    environment.record()
    environment.harness.cause(trouble, position)

    environment.relay.run()

    refused = [event for event in environment.arrived_ids() if event not in environment.accepted_ids()]
    assert len(refused) == 1
    environment.check_that_nothing_is_lost(dead=refused)
    environment.check_that_nothing_is_repeated()


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize(("name", "trouble"), possible(Trouble.FAILS, Trouble.DENIES))
def test_what_follows_a_message_that_was_not_taken_waits_with_it(
    open_environment: Open, name: str, trouble: Trouble, position: int
) -> None:
    environment = open_environment(name)
    environment.connect()
    events = environment.record()
    environment.harness.cause(trouble, position)
    environment.relay.run()
    (refused,) = [row for row in rows(environment.db) if row.unreachable_at]
    follow = [row for row in rows(environment.db) if row.aggregate_id == refused.aggregate_id and row.id >= refused.id]
    assert set(environment.accepted_ids()).isdisjoint(str(row.event_id) for row in follow)
    assert len(set(environment.accepted_ids()) & set(events)) == len(events) - len(follow)

    environment.recover()

    environment.check_that_nothing_is_lost()
    environment.check_that_nothing_is_repeated()


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize(("name", "trouble"), possible(Trouble.FAILS, Trouble.DENIES))
def test_a_message_that_alone_is_not_taken_dies_and_its_aggregate_continues(
    open_environment: Open, name: str, trouble: Trouble, position: int
) -> None:
    environment = open_environment(name, max_attempts=2)
    environment.connect()
    environment.record()
    environment.harness.cause(trouble, position)

    # In doubt first; then the first attempt is spent, and the last one. Enough others are taken in between.
    for _ in range(3):
        environment.relay.run()
        environment.record_elsewhere(TAKEN_FOR_EACH_REFUSED)
        environment.relay.run()
        time_passes(environment.db)
    environment.relay.run()

    dead = [str(row.event_id) for row in rows(environment.db) if row.attempts == 2]
    environment.check_that_nothing_is_lost(dead=dead)
    assert states(environment.db).count("dead") == 1
    environment.check_that_nothing_is_repeated()


@pytest.mark.parametrize(("name", "trouble"), possible(*AMBIGUOUS))
def test_what_is_in_doubt_is_sent_again_under_the_same_id(open_environment: Open, name: str, trouble: Trouble) -> None:
    environment = open_environment(name, max_attempts=1, timeout_seconds=HARNESSES[name].short_seconds)
    environment.connect()
    events = environment.record()
    environment.harness.cause(trouble)
    environment.endure()
    wait_until("the server has taken an event", lambda: not set(environment.accepted_ids()).isdisjoint(events))

    environment.recover()

    assert max(Counter(environment.arrived_ids()).values()) > 1
    environment.check_that_nothing_is_lost()
    environment.check_that_no_attempt_is_spent()
    if environment.harness.drops_repeats:
        environment.check_that_nothing_is_repeated()


@pytest.mark.parametrize(("name", "trouble"), possible(Trouble.THROTTLES, Trouble.GOES_DOWN))
def test_an_outage_costs_no_attempt_and_no_message(open_environment: Open, name: str, trouble: Trouble) -> None:
    environment = open_environment(name, max_attempts=1, timeout_seconds=HARNESSES[name].outage_seconds)
    environment.connect()
    events = environment.record()
    environment.harness.cause(trouble)
    environment.endure()
    assert set(environment.accepted_ids()).isdisjoint(events)

    environment.recover()

    environment.check_that_nothing_is_lost()
    environment.check_that_nothing_is_repeated()
    environment.check_that_no_attempt_is_spent()


@pytest.mark.parametrize(("name", "trouble"), possible(Trouble.RETURNS))
def test_what_is_returned_waits_until_an_operator_has_mended_it(
    open_environment: Open, name: str, trouble: Trouble
) -> None:
    environment = open_environment(name, max_attempts=1)
    environment.connect()
    returned = environment.record()
    environment.harness.cause(trouble)
    environment.endure()
    assert set(environment.accepted_ids()).isdisjoint(returned)

    environment.recover()

    environment.check_that_nothing_is_lost()
    environment.check_that_nothing_is_repeated()
    environment.check_that_no_attempt_is_spent()


@pytest.mark.parametrize("name", HARNESSES)
def test_a_trouble_that_is_left_out_has_its_reason(name: str) -> None:
    assert all(HARNESSES[name].impossible.values())
    assert name == "feed" or Trouble.GOES_DOWN not in HARNESSES[name].impossible, "every server can go down"
