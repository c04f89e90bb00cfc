"""The connections of a process: many destinations share a few, and the leases have one of their own."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from sqlalchemy import select, text

from domain.outbox.table import lanes
from domain.runtime.database import CONNECT_TIMEOUT_SECONDS
from domain.runtime.settings import Settings
from tests.support.builders import Db
from tests.support.outbox import a_lane, an_aggregate, recorded_for, with_shop
from tests.support.waiting import wait_until
from worker.app import SPARE_CONNECTIONS, App, open_app
from worker.relay.leases import clock


@pytest.fixture
def app(db: Db, settings: Settings) -> Iterator[App]:
    app = open_app(settings, threads=1)
    yield app
    app.close()


def with_all_connections_in_use(app: App) -> ExitStack:
    stack = ExitStack()
    for _ in range(1 + SPARE_CONNECTIONS):
        stack.enter_context(app.db.begin()).execute(text("SELECT 1"))
    return stack


def test_leases_are_renewed_while_the_threads_use_all_connections(app: App, db: Db) -> None:
    shop = with_shop(db)
    recorded_for(shop, an_aggregate(1))
    lane = a_lane(shop)
    until = select(lanes.c.leased_until).where(lanes.c.holder == lane.holder)
    with shop.begin() as session:
        before = session.execute(until).scalar_one()

    def is_renewed() -> bool:
        with shop.begin() as session:
            return bool(session.execute(until).scalar_one() > before)

    with with_all_connections_in_use(app), app.relay.leases.renewing(lane, claimed_at=clock()):
        wait_until("the lease is renewed", is_renewed)


@pytest.mark.slow
def test_a_thread_that_waits_for_a_connection_keeps_what_it_was_answered(app: App) -> None:
    """A time-out would throw it away."""

    def settle() -> object:
        with app.db.begin() as session:
            return session.execute(text("SELECT true")).scalar_one()

    with ThreadPoolExecutor(1) as threads:
        with with_all_connections_in_use(app):
            settled = threads.submit(settle)
            threading.Event().wait(CONNECT_TIMEOUT_SECONDS + 0.5)
        assert settled.result() is True
