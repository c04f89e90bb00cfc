"""Concurrency limits: a destination that answers slowly leaves threads of the process to the others."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from domain.outbox import Delivered, Outcome, Row
from domain.outbox.routes import Route, Routes
from tests.support.builders import Db, an_event, recorded, with_routes
from tests.support.outbox import FakeDestination, an_aggregate
from tests.support.waiting import wait_until
from worker.relay.concurrency_limits import ConcurrencyLimits
from worker.relay.leases import Leases
from worker.relay.relay import Relay


def test_no_destination_uses_all_threads_if_there_are_others() -> None:
    limits = ConcurrencyLimits(["shop", "log"], threads=3)

    with limits.thread("shop") as first, limits.thread("shop") as second, limits.thread("shop") as third:
        assert (first, second, third) == (True, True, False)
        assert limits.with_room() == ["log"]
    assert limits.with_room() == ["shop", "log"]


@pytest.mark.parametrize(("names", "threads"), [(["shop"], 3), (["shop", "log"], 1), (["shop"], 1)])
def test_a_lone_destination_uses_all_threads_and_a_lone_thread_serves_all(names: list[str], threads: int) -> None:
    limits = ConcurrencyLimits(names, threads)

    for _ in range(threads - 1):
        limits.thread("shop").__enter__()

    assert limits.with_room() == names


def test_a_thread_that_raises_counts_no_longer() -> None:
    limits = ConcurrencyLimits(["shop", "log"], threads=2)

    with pytest.raises(ValueError, match="broken"), limits.thread("shop"):
        raise ValueError("broken")

    assert limits.with_room() == ["shop", "log"]


def test_a_slow_destination_leaves_a_thread_for_another(db: Db) -> None:
    """There are two threads, and the slow destination has two lanes to drain: the quick one is drained meanwhile."""
    may_continue, called = threading.Event(), threading.Semaphore(0)

    def slowly(_: Row) -> Outcome:
        called.release()
        may_continue.wait(30)
        return Delivered()

    slow, quick = FakeDestination(slowly), FakeDestination()
    with a_relay(db, {"slow": slow, "quick": quick}, threads=2) as relay:
        recorded(relay.db, *(an_event(an_aggregate(lane)) for lane in (0, 1)))
        threads = [threading.Thread(target=relay.run) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            assert called.acquire(timeout=10)
            wait_until("the quick shop is called twice", lambda: len(quick.called) == 2)
            assert len(slow.called) == 1
        finally:
            may_continue.set()
            for thread in threads:
                thread.join()
        relay.run()
    assert len(slow.called) == 2


@contextmanager
def a_relay(db: Db, shops: dict[str, FakeDestination], *, threads: int) -> Iterator[Relay]:
    """A relay to several destinations that want every event."""
    routes = {name: Route(name=name, url="null:") for name in shops}
    sessions = with_routes(db, Routes(list(routes.values())))
    leases = Leases(sessions)
    try:
        limits = ConcurrencyLimits(list(shops), threads)
        yield Relay(db=sessions, routes=routes, destinations=shops, leases=leases, limits=limits)
    finally:
        leases.close()
        for shop in shops.values():
            shop.close()
