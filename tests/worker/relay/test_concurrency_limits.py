"""A process's threads are shared out: a destination that answers slowly leaves room for the others."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from domain import outbox
from domain.outbox import Delivered, Outcome, Row
from domain.outbox.routes import Route, Routes
from domain.runtime import database
from tests.support.builders import Db, an_event, recorded, wait_until
from tests.support.outbox import Outside, an_aggregate
from worker.relay.concurrency_limits import ConcurrencyLimits
from worker.relay.leases import Leases
from worker.relay.relay import Relay


def test_no_destination_gets_all_threads_where_there_are_others() -> None:
    shares = ConcurrencyLimits(["shop", "log"], threads=3)

    with shares.one("shop") as first, shares.one("shop") as second, shares.one("shop") as third:
        assert (first, second, third) == (True, True, False)
        assert shares.open() == ["log"]
    assert shares.open() == ["shop", "log"]


@pytest.mark.parametrize(("names", "threads"), [(["shop"], 3), (["shop", "log"], 1), (["shop"], 1)])
def test_a_lone_destination_gets_all_threads_and_a_lone_thread_serves_all(names: list[str], threads: int) -> None:
    shares = ConcurrencyLimits(names, threads)

    for _ in range(threads - 1):
        shares.one("shop").__enter__()

    assert shares.open() == names


def test_a_share_is_given_back_by_a_thread_that_breaks() -> None:
    shares = ConcurrencyLimits(["shop", "log"], threads=2)

    with pytest.raises(ValueError, match="broken"), shares.one("shop"):
        raise ValueError("broken")

    assert shares.open() == ["shop", "log"]


def test_a_slow_destination_leaves_a_thread_for_another(db: Db) -> None:
    """Two threads, and a slow destination with two lanes to serve: the quick one is served meanwhile."""
    goes_on, called = threading.Event(), threading.Semaphore(0)

    def slowly(_: Row) -> Outcome:
        called.release()
        goes_on.wait(30)
        return Delivered()

    slow, quick = Outside(slowly), Outside()
    with a_drain(db, {"slow": slow, "quick": quick}, threads=2) as drain:
        recorded(relay.db, *(an_event(an_aggregate(lane)) for lane in (0, 1)))
        threads = [threading.Thread(target=relay.run) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            assert called.acquire(timeout=10)
            wait_until(lambda: len(quick.called) == 2)
            assert len(slow.called) == 1
        finally:
            goes_on.set()
            for thread in threads:
                thread.join()
        relay.run()
    assert len(slow.called) == 2


@contextmanager
def a_drain(db: Db, shops: dict[str, Outside], *, threads: int) -> Iterator[Relay]:
    """A drain of several destinations that want every event."""
    routes = {name: Route(name=name, url="null:") for name in shops}
    sessions = database.sessions(db.kw["bind"], routes=Routes(list(routes.values())))
    with sessions.begin() as session:
        outbox.register(session, routes)
    leases = Leases(sessions)
    try:
        yield Relay(db=sessions, routes=routes, destinations=shops, leases=leases, shares=ConcurrencyLimits(list(shops), threads))
    finally:
        leases.close()
        for shop in shops.values():
            shop.close()
