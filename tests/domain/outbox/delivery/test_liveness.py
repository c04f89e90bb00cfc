"""Liveness: the lanes of a process are free as soon as nobody has its key, and those of a living one never are."""

from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta

import psycopg
import pytest
from sqlalchemy import Connection, select, update
from sqlalchemy.orm import Session

from deploy.embedded import PostgreSQL
from domain import outbox
from domain.outbox import NOT_SENT, CommitHorizon, Delivered, InFlight, LeasedLane
from domain.outbox.delivery.liveness import LOCK_CLASS, neighbour_of
from domain.outbox.table import lanes
from domain.runtime.direct_connections import open_direct
from domain.runtime.settings import Settings
from tests.support.builders import Db
from tests.support.outbox import SHOP, a_lane, an_aggregate, claimed, fetched, recorded_for, released, settled
from tests.support.waiting import wait_until


@dataclass(frozen=True)
class Process:
    """A process in these tests: the connection that holds its lock, and its key."""

    connection: Connection
    key: int
    db: Db

    def end(self) -> None:
        """End it, and wait until PostgreSQL has noticed."""
        self.connection.close()
        wait_until("its lock is released", lambda: self.key not in live(self.db))


Start = Callable[[], Process]


@pytest.fixture
def a_process(db: Db, settings: Settings) -> Iterator[Start]:
    with ExitStack() as connections:

        def started() -> Process:
            connection = connections.enter_context(open_direct(settings.database_url, application_name="tests"))
            with Session(connection) as session:
                return Process(connection, outbox.lock_liveness_key(session), db)

        yield started


def live(db: Db) -> Collection[int]:
    with db.begin() as session:
        return outbox.find_liveness_keys(session).live


def a_lane_of(db: Db, key: int, name: str = SHOP) -> LeasedLane:
    with db.begin() as session:
        lane = outbox.claim(session, [name], f"host:1:{key}", CommitHorizon(), liveness_key=key)
    assert lane is not None
    return lane


def freed(db: Db, dead: Collection[int] | None = None) -> Sequence[str]:
    """Free the lanes of these keys, or of those that are found dead. Return their holders."""
    with db.begin() as session:
        return outbox.free_lanes(session, outbox.find_liveness_keys(session).dead if dead is None else dead)


def key_of(db: Db, lane: LeasedLane) -> int | None:
    stored = select(lanes.c.liveness_key).where(lanes.c.destination == lane.destination, lanes.c.lane == lane.number)
    with db.begin() as session:
        key: int | None = session.execute(stored).scalar_one()
    return key


@pytest.mark.parametrize(
    ("key", "live", "neighbour"),
    [
        (5, {5}, None),
        (5, {5, 7, 9}, 7),
        (7, {5, 7, 9}, 9),
        (9, {5, 7, 9}, 5),
        (5, {5, 9}, 9),
        # A process that has lost its own lock watches another one all the same.
        (None, {7, 9}, 7),
        (None, set(), None),
    ],
)
def test_each_process_watches_the_next_one(key: int | None, live: set[int], neighbour: int | None) -> None:
    assert neighbour_of(key, live) == neighbour


def test_the_lanes_of_a_process_are_free_when_its_connection_ends(shop: Db, a_process: Start) -> None:
    recorded_for(shop, an_aggregate(1), an_aggregate(2))
    ending, living = a_process(), a_process()
    lost, kept = a_lane_of(shop, ending.key), a_lane_of(shop, living.key)

    before = freed(shop)
    ending.end()
    after = freed(shop)

    assert (before, after) == ([], [lost.holder])
    again = a_lane(shop)
    assert again.number == lost.number
    assert claimed(shop) is None
    assert key_of(shop, kept) == living.key


def test_a_process_whose_lane_was_freed_can_not_settle(shop: Db, a_process: Start) -> None:
    recorded_for(shop, an_aggregate(1))
    process = a_process()
    lane = a_lane_of(shop, process.key)
    batch = fetched(shop, lane)
    process.end()

    freed(shop)

    assert settled(shop, lane, [(row, Delivered()) for row in batch]) is None
    assert [row.id for row in fetched(shop, a_lane(shop))] == [row.id for row in batch]


def test_a_freed_lane_is_claimed_before_all_that_were_released(shop: Db, a_process: Start) -> None:
    recorded_for(shop, *(an_aggregate(number) for number in range(4)))
    others = [a_lane(shop) for _ in range(3)]
    process = a_process()
    lane = a_lane_of(shop, process.key)
    for other in others:
        released(shop, other)

    process.end()
    freed(shop)

    assert a_lane(shop).number == lane.number


def test_a_lane_without_a_key_is_left_to_its_lease(shop: Db) -> None:
    recorded_for(shop, an_aggregate(1))
    lane = a_lane(shop)

    assert freed(shop) == []
    assert key_of(shop, lane) is None
    assert claimed(shop) is None


def test_a_released_lane_carries_no_key(shop: Db, a_process: Start) -> None:
    recorded_for(shop, an_aggregate(1))
    process = a_process()
    lane = a_lane_of(shop, process.key)
    before = key_of(shop, lane)

    released(shop, lane)

    assert (before, key_of(shop, lane)) == (process.key, None)


def test_a_lane_that_earlier_code_has_released_and_that_still_carries_a_key_is_no_dead_process(
    shop: Db, a_process: Callable[[], Process]
) -> None:
    recorded_for(shop, an_aggregate(1))
    process = a_process()
    lane = a_lane_of(shop, process.key)
    with shop.begin() as session:
        session.execute(update(lanes).where(lanes.c.lane == lane.number).values(holder=None))
    process.end()

    assert freed(shop) == []
    assert key_of(shop, lane) is None


def test_a_lane_that_is_locked_is_freed_later_and_keeps_no_other_waiting(
    shop: Db, a_process: Callable[[], Process]
) -> None:
    recorded_for(shop, an_aggregate(1), an_aggregate(2))
    process = a_process()
    settling, other = a_lane_of(shop, process.key), a_lane_of(shop, process.key)
    process.end()

    with shop.begin() as session:
        session.execute(select(lanes).where(lanes.c.lane == settling.number).with_for_update())
        first = freed(shop)
    second = freed(shop)

    assert (first, second) == ([other.holder], [settling.holder])


def test_a_lane_that_was_claimed_again_meanwhile_stays_leased(shop: Db, a_process: Start) -> None:
    """A process finds a key dead; before it frees the lane, another one has claimed it under a key that lives."""
    recorded_for(shop, an_aggregate(1))
    process = a_process()
    lane = a_lane_of(shop, process.key)
    process.end()
    with shop() as session:
        found = outbox.find_liveness_keys(session).dead
    released(shop, lane)
    living = a_process()
    again = a_lane_of(shop, living.key)

    assert found == {process.key}
    assert freed(shop, found) == []
    assert key_of(shop, again) == living.key


def test_the_lock_of_another_database_is_no_sign_of_life(
    shop: Db, postgresql: PostgreSQL, a_process: Callable[[], Process]
) -> None:
    recorded_for(shop, an_aggregate(1))
    process = a_process()
    lane = a_lane_of(shop, process.key)
    process.end()

    with psycopg.connect(postgresql.create("elsewhere")) as elsewhere:
        elsewhere.execute("SELECT pg_advisory_lock(%s, %s)", [LOCK_CLASS, process.key])

        assert freed(shop) == [lane.holder]


def test_whoever_waits_for_the_end_of_a_process_does_not_seem_to_be_that_process(
    shop: Db, a_process: Callable[[], Process]
) -> None:
    recorded_for(shop, an_aggregate(1))
    process = a_process()
    lane = a_lane_of(shop, process.key)
    process.end()

    with shop.begin() as session:
        outbox.wait_for_end(session, process.key)

        assert freed(shop) == [lane.holder]


def test_a_process_that_has_a_new_key_keeps_the_lanes_that_nobody_has_freed(
    shop: Db, a_process: Callable[[], Process]
) -> None:
    recorded_for(shop, an_aggregate(1))
    process = a_process()
    lane = a_lane_of(shop, process.key)
    process.end()
    new = a_process()

    with shop.begin() as session:
        outbox.adopt(session, lost=process.key, key=new.key)

    assert key_of(shop, lane) == new.key
    assert freed(shop) == []


def test_the_rows_of_calls_in_flight_are_due_as_soon_as_their_process_has_ended(shop: Db, a_process: Start) -> None:
    aggregate = an_aggregate(1)
    recorded_for(shop, aggregate, aggregate, an_aggregate(2))
    ending, living = a_process(), a_process()
    for process in (ending, living):
        lane = a_lane_of(shop, process.key)
        head, *behind = fetched(shop, lane)
        in_flight = InFlight(timedelta(minutes=1), Future())
        settled(shop, lane, [(head, in_flight), *((one, NOT_SENT) for one in behind)])
        released(shop, lane)
    assert freed_calls(shop) == 0

    ending.end()

    assert freed_calls(shop) == 2, "The row of the call, and the one that waits behind it."
    assert freed_calls(shop) == 0
    lane = a_lane(shop)
    assert (lane.number, lane.has_due_rows, claimed(shop)) == (1, True, None)


def freed_calls(db: Db) -> int:
    with db.begin() as session:
        return outbox.free_calls(session, outbox.find_liveness_keys(session).dead)
