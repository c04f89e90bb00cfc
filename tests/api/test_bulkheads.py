"""Bulkheads: one kind of request has threads of its own, limits on waiting, and room for others beside a locked row."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from api.bulkheads import Bulkhead, Limits
from api.rests import ALLOWANCE_SECONDS, Rests
from domain import items, outbox
from domain.access import Principal
from domain.runtime.database_errors import trouble
from domain.runtime.errors import Busy, UnknownItem
from domain.runtime.settings import Settings
from tests.support.builders import ROUTES, Db, an_event, an_item
from tests.support.waiting import wait_until

Open = Callable[..., Bulkhead]


@pytest.fixture
def opened(settings: Settings, db: Db) -> Iterator[Open]:
    """Make bulkheads. `committed` counts what they have committed."""
    bulkheads = []

    def make(committed: Callable[[], None] = lambda: None, **limits: Any) -> Bulkhead:
        bulkheads.append(Bulkhead("tests", settings, Limits(**limits), committed=committed))
        return bulkheads[-1]

    yield make
    for bulkhead in bulkheads:
        bulkhead.close()


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def within_a_minute() -> None:
        async with asyncio.timeout(60):
            await test()

    asyncio.run(within_a_minute())


async def until(what: str, holds: Callable[[], object]) -> None:
    await asyncio.to_thread(wait_until, what, holds)


class Slow:
    """Requests that are answered when `end` is called."""

    def __init__(self) -> None:
        self.running = 0
        self._ended = threading.Event()

    def __call__(self, _: Session) -> str:
        self.running += 1
        assert self._ended.wait(60)
        return "slow"

    def end(self) -> None:
        self._ended.set()


def quick(session: Session) -> int:
    return int(session.execute(select(1)).scalar_one())


def test_a_request_is_committed_and_workers_are_woken_if_it_has_recorded_events(opened: Open, db: Db) -> None:
    woken: list[bool] = []
    bulkhead = opened(lambda: woken.append(True), threads=1)

    async def test() -> None:
        assert await bulkhead.run(quick) == 1
        assert woken == []
        await bulkhead.run(lambda session: outbox.record(session, [an_event()], ROUTES))
        assert woken == [True]

    run(test)
    with db.begin() as session:
        assert session.execute(text("SELECT count(*) FROM outbox")).scalar_one() == 1


def test_what_a_request_raises_is_raised_and_nothing_is_committed(opened: Open, db: Db) -> None:
    bulkhead = opened(threads=1)

    def fail(session: Session) -> None:
        items.create(session, sku="GONE", name="Gone", available_quantity=1)
        raise UnknownItem(1)

    async def test() -> None:
        with pytest.raises(UnknownItem):
            await bulkhead.run(fail)

    run(test)
    with db.begin() as session:
        assert session.execute(text("SELECT count(*) FROM items")).scalar_one() == 0


def test_further_requests_wait_for_a_thread_and_are_busy_if_they_get_none_in_time(opened: Open) -> None:
    bulkhead, slow = opened(threads=2, wait_seconds=0.2), Slow()

    async def test() -> None:
        running = [asyncio.create_task(bulkhead.run(slow)) for _ in range(2)]
        await until("both threads are taken", lambda: slow.running == 2)
        with pytest.raises(Busy):
            await bulkhead.run(quick)
        assert slow.running == 2

        waiting = asyncio.create_task(bulkhead.run(quick))
        await asyncio.sleep(0)
        slow.end()
        assert (await waiting, [await one for one in running]) == (1, ["slow", "slow"])

    run(test)


def test_a_request_that_finds_too_many_others_waiting_is_busy_at_once(opened: Open) -> None:
    bulkhead, slow = opened(threads=1, waiting=2, wait_seconds=60), Slow()

    async def test() -> None:
        tasks = [asyncio.create_task(bulkhead.run(slow)) for _ in range(3)]
        await until("the thread is taken", lambda: slow.running == 1)
        with pytest.raises(Busy):
            await bulkhead.run(quick)
        slow.end()
        assert await asyncio.gather(*tasks) == ["slow"] * 3

    run(test)


def test_clients_take_turns(opened: Open) -> None:
    bulkhead, slow = opened(threads=1), Slow()
    order = []

    async def ask(client: str) -> None:
        await bulkhead.run(quick, Principal(client))
        order.append(client)

    async def test() -> None:
        running = asyncio.create_task(bulkhead.run(slow))
        await until("the thread is taken", lambda: slow.running == 1)
        waiting = [asyncio.create_task(ask(client)) for client in ["greedy"] * 50 + ["modest"] * 2]
        await asyncio.sleep(0)
        slow.end()
        await asyncio.gather(running, *waiting)

    run(test)
    assert order == ["greedy", "modest", "greedy", "modest", *["greedy"] * 48]


GREEDY, MODEST = Principal("greedy"), Principal("modest")


def compute(_: Session) -> str:
    began = time.thread_time()
    while time.thread_time() - began < 0.05:
        pass
    return "computed"


def test_a_client_that_computes_for_long_rests_and_no_other_waits_for_it(opened: Open) -> None:
    bulkhead = opened(threads=2, wait_seconds=0.3, processors=0.001)

    async def test() -> None:
        assert await bulkhead.run(compute, GREEDY) == "computed"
        with pytest.raises(Busy):
            await bulkhead.run(compute, GREEDY)
        assert await bulkhead.run(quick, MODEST) == 1

    run(test)


def test_a_client_that_has_rested_gets_the_thread_that_it_waits_for(opened: Open) -> None:
    bulkhead = opened(threads=1, wait_seconds=50, processors=0.1)

    async def test() -> None:
        began = time.monotonic()
        assert await asyncio.gather(*(bulkhead.run(compute, GREEDY) for _ in range(3))) == ["computed"] * 3
        assert time.monotonic() - began > 0.5

    run(test)


def test_the_more_clients_compute_for_long_the_longer_each_of_them_rests() -> None:
    rests = Rests(processors=0.5)

    for client in "ab":
        rests.charge(client, 10)

    now = time.monotonic()
    assert [round(rests.seconds_of(client, now) + ALLOWANCE_SECONDS) for client in "abc"] == [10, 30, 0]


def test_no_client_has_all_threads_that_compute(opened: Open) -> None:
    bulkhead, slow = opened(threads=2, processors=1), Slow()

    async def test() -> None:
        running = [asyncio.create_task(bulkhead.run(slow, GREEDY)) for _ in range(3)]
        await until("one thread is taken", lambda: slow.running == 1)
        assert await bulkhead.run(quick, MODEST) == 1
        assert slow.running == 1
        slow.end()
        assert await asyncio.gather(*running) == ["slow"] * 3

    run(test)


def test_in_a_full_queue_the_client_that_has_the_most_there_is_busy(opened: Open) -> None:
    bulkhead, slow = opened(threads=1, waiting=3, wait_seconds=60), Slow()

    async def test() -> None:
        running = asyncio.create_task(bulkhead.run(slow))
        await until("the thread is taken", lambda: slow.running == 1)
        many = [asyncio.create_task(bulkhead.run(quick, Principal("greedy"))) for _ in range(3)]
        await asyncio.sleep(0)
        modest = asyncio.create_task(bulkhead.run(quick, Principal("modest")))
        with pytest.raises(Busy):
            await many[-1]
        slow.end()
        assert await asyncio.gather(running, modest, *many[:2]) == ["slow", 1, 1, 1]

    run(test)


def test_a_turn_that_is_given_up_leaves_the_thread_to_others(opened: Open) -> None:
    """The client goes in the moment in which its request has got the thread, or while it waits."""
    bulkhead, slow = opened(threads=1, waiting=1), Slow()

    async def test() -> None:
        running = asyncio.create_task(bulkhead.run(slow))
        await until("the thread is taken", lambda: slow.running == 1)
        for _ in range(3):
            gone = asyncio.create_task(bulkhead.run(quick))
            await asyncio.sleep(0)
            gone.cancel()
            with pytest.raises(asyncio.CancelledError):
                await gone
        gone = asyncio.create_task(bulkhead.run(quick))
        await asyncio.sleep(0)
        running.add_done_callback(lambda _: gone.cancel())
        slow.end()
        assert await running == "slow"
        for _ in range(3):
            assert await bulkhead.run(quick) == 1

    run(test)


def test_a_request_that_its_client_has_abandoned_keeps_its_thread_until_it_ends(opened: Open) -> None:
    bulkhead, slow = opened(threads=1, wait_seconds=0.2), Slow()

    async def test() -> None:
        abandoned = asyncio.create_task(bulkhead.run(slow))
        await until("the thread is taken", lambda: slow.running == 1)
        abandoned.cancel()
        with pytest.raises(Busy):
            await bulkhead.run(quick)
        slow.end()
        assert await bulkhead.run(quick) == 1

    run(test)


def test_slow_requests_of_one_kind_take_nothing_from_another_kind(opened: Open) -> None:
    one, other, slow = opened(threads=1), opened(threads=1), Slow()

    async def test() -> None:
        running = asyncio.create_task(one.run(slow))
        await until("the thread is taken", lambda: slow.running == 1)
        assert await other.run(quick) == 1
        slow.end()
        await running

    run(test)


def test_a_statement_that_takes_too_long_is_ended(opened: Open) -> None:
    bulkhead = opened(threads=1, statement_seconds=1)

    async def test() -> None:
        with pytest.raises(OperationalError) as caught:
            await bulkhead.run(lambda session: session.execute(text("SELECT pg_sleep(60)")))
        assert isinstance(trouble(caught.value), Busy)
        assert await bulkhead.run(quick) == 1

    run(test)


def test_a_bulkhead_that_is_closed_finishes_what_it_does(opened: Open) -> None:
    bulkhead, slow = opened(threads=1), Slow()

    async def test() -> None:
        running = asyncio.create_task(bulkhead.run(slow))
        await until("the thread is taken", lambda: slow.running == 1)
        closing = asyncio.create_task(asyncio.to_thread(bulkhead.close))
        slow.end()
        await closing
        assert await running == "slow"

    run(test)


@contextmanager
def locked(db: Db, item: items.Item) -> Iterator[None]:
    with db.begin() as session:
        items.lock(session, [item.id])
        yield


def renaming(item: items.Item, name: str) -> Callable[[Session], str]:
    return lambda session: items.amend(session, item.id, name=name).name


def test_requests_for_a_row_that_stays_locked_leave_the_threads_to_others(opened: Open, db: Db) -> None:
    one, other = an_item(db), an_item(db)
    bulkhead = opened(threads=1, lock_milliseconds=10, locked=Limits(threads=2, lock_milliseconds=30_000))

    async def test() -> None:
        with locked(db, one):
            waiting = [asyncio.create_task(bulkhead.run(renaming(one, "new"))) for _ in range(20)]
            for number in range(10):
                assert await bulkhead.run(renaming(other, f"{number}")) == f"{number}"
            assert not any(task.done() for task in waiting)
        assert await asyncio.gather(*waiting) == ["new"] * 20

    run(test)


def test_a_row_that_is_locked_for_too_long_means_busy(opened: Open, db: Db) -> None:
    item = an_item(db)
    bulkhead = opened(threads=1, lock_milliseconds=10, locked=Limits(threads=1, lock_milliseconds=50))

    async def test() -> None:
        with locked(db, item), pytest.raises(OperationalError) as caught:
            await bulkhead.run(renaming(item, "new"))
        assert isinstance(trouble(caught.value), Busy)

    run(test)
