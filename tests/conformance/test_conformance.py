"""Every destination under every trouble: nothing lost, nothing overtaken, and what nobody can know is sent again."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from threading import Thread
from typing import Any

import pytest

from domain.outbox.table import LANES
from tests.conformance.environment import Scene, a_scene
from tests.conformance.harness import AMBIGUOUS, Trouble
from tests.conformance.harnesses import WORLDS, able
from tests.support.builders import Db, wait_until
from tests.support.outbox import an_aggregate, rows, standing, time_passes

#: Each message of a batch of three aggregates with three events each.
POSITIONS = range(1, 10)

Play = Callable[..., Scene]


@pytest.fixture
def play(db: Db) -> Iterator[Play]:
    """Open scenes in the world of this name. All is closed after the test."""
    with ExitStack() as stack:

        def opened(name: str, **route: Any) -> Scene:
            world = WORLDS[name]()
            stack.callback(world.close)
            return stack.enter_context(a_scene(db, world, **route))

        yield opened


@pytest.mark.parametrize("name", WORLDS)
def test_each_event_is_taken_once_and_in_order(play: Play, name: str) -> None:
    scene = play(name, batch_size=4)
    scene.records()

    scene.drain.run()

    scene.is_conserved()
    scene.is_taken_once()


@pytest.mark.parametrize("name", WORLDS)
def test_several_threads_may_deliver_at_once(play: Play, name: str) -> None:
    scene = play(name, aggregates=[an_aggregate(lane) for lane in range(LANES)], batch_size=7)
    scene.records(each=5)

    threads = [Thread(target=scene.drain.run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    scene.is_conserved()
    scene.is_taken_once()


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize(("name", "trouble"), able(Trouble.REFUSES))
def test_a_message_that_is_refused_dies_alone(play: Play, name: str, trouble: Trouble, position: int) -> None:
    scene = play(name)
    scene.records()
    scene.world.suffers(trouble, position)

    scene.drain.run()

    refused = [event for event in scene.came_in() if event not in scene.taken()]
    assert len(refused) == 1
    scene.is_conserved(dead=refused)
    scene.is_taken_once()


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize(("name", "trouble"), able(Trouble.FAILS))
def test_what_follows_a_message_that_failed_waits_with_it(
    play: Play, name: str, trouble: Trouble, position: int
) -> None:
    scene = play(name)
    scene.records()
    scene.world.suffers(trouble, position)
    scene.drain.run()
    (failed,) = [row for row in rows(scene.db) if row.attempts]
    follow = [row for row in rows(scene.db) if row.aggregate_id == failed.aggregate_id and row.id >= failed.id]
    assert set(scene.taken()).isdisjoint(str(row.event_id) for row in follow)
    assert len(scene.taken()) == 9 - len(follow)

    scene.recovers()

    scene.is_conserved()
    scene.is_taken_once()


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize(("name", "trouble"), able(Trouble.FAILS))
def test_after_its_last_attempt_a_message_dies_and_its_aggregate_goes_on(
    play: Play, name: str, trouble: Trouble, position: int
) -> None:
    scene = play(name, max_attempts=2)
    scene.records()
    scene.world.suffers(trouble, position)

    scene.endures()
    scene.drain.run()

    scene.is_conserved(dead=[str(row.event_id) for row in rows(scene.db) if row.attempts == 2])
    assert standing(scene.db).count("dead") == 1
    scene.is_taken_once()


@pytest.mark.parametrize(("name", "trouble"), able(*AMBIGUOUS))
def test_what_nobody_can_know_is_sent_again_under_the_same_id(play: Play, name: str, trouble: Trouble) -> None:
    scene = play(name, max_attempts=1, timeout_seconds=WORLDS[name].short_seconds)
    scene.opens()
    events = scene.records()
    scene.world.suffers(trouble)
    scene.endures()
    wait_until(lambda: not set(scene.taken()).isdisjoint(events))

    scene.recovers()

    assert max(Counter(scene.came_in()).values()) > 1
    scene.is_conserved()
    scene.has_spent_nothing()
    if scene.world.drops_repeats:
        scene.is_taken_once()


@pytest.mark.parametrize(("name", "trouble"), able(Trouble.THROTTLES, Trouble.GOES_DOWN))
def test_an_outage_costs_no_attempt_and_no_message(play: Play, name: str, trouble: Trouble) -> None:
    scene = play(name, max_attempts=1)
    scene.opens()
    events = scene.records()
    scene.world.suffers(trouble)
    scene.endures()
    assert set(scene.taken()).isdisjoint(events)

    scene.recovers()

    scene.is_conserved()
    scene.is_taken_once()
    scene.has_spent_nothing()


@pytest.mark.parametrize(("name", "trouble"), able(Trouble.RETURNS))
def test_what_is_returned_is_dead_or_waits_until_an_operator_has_mended_it(
    play: Play, name: str, trouble: Trouble
) -> None:
    scene = play(name, max_attempts=1)
    scene.opens()
    returned = scene.records()
    scene.world.suffers(trouble)
    scene.endures()
    assert set(scene.taken()).isdisjoint(returned)

    scene.recovers()
    scene.records()
    time_passes(scene.db)
    scene.drain.run()

    scene.is_conserved(dead=returned if scene.world.returned_is_dead else ())
    scene.is_taken_once()


@pytest.mark.parametrize("name", WORLDS)
def test_what_can_not_happen_to_a_destination_has_its_reason(name: str) -> None:
    assert all(WORLDS[name].cannot.values())
    assert Trouble.GOES_DOWN not in WORLDS[name].cannot, "everything goes down"
