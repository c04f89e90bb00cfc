"""Overdue holds: how fast they are expired and their stock given back."""

import threading
import time
from collections.abc import Iterator
from datetime import timedelta

import psycopg
from sqlalchemy.orm import Session, sessionmaker

from benchmarks.environment import ITEMS, Environment
from benchmarks.measure import Measure, compare, median
from domain import reservations
from domain.fulfilment import load_routes
from domain.outbox import Routes
from domain.reservations import Claim, Reserve
from domain.runtime import database
from domain.runtime.settings import Settings
from worker import maintenance

HOLDS = 50_000

#: Holds that are made in one transaction.
RESERVED_AT_ONCE = 1_000

ROUNDS = 3


def expiring(environment: Environment) -> Iterator[Measure]:
    """The expiry of overdue holds, against a bare SQL loop."""
    settings = Settings.load()
    routes = load_routes(settings)
    engine = database.connect(settings, connections=1)
    db = database.sessions(engine)
    ours, bare = [], []
    for _ in range(ROUNDS):
        _fill(environment, db, routes)
        ours.append(_expire(db, routes))
        _fill(environment, db, routes)
        bare.append(_bare_loop(environment))
    engine.dispose()
    yield compare("overdue holds expired/s", median(ours), median(bare), named="bare SQL loop", at_least=0.15)


def _fill(environment: Environment, db: sessionmaker[Session], routes: Routes) -> None:
    """Clear the database, and make holds that are overdue at once."""
    environment.clear()
    hold_for = timedelta(milliseconds=1)
    for start in range(0, HOLDS, RESERVED_AT_ONCE):
        numbers = range(start, start + RESERVED_AT_ONCE)
        requests = [
            Reserve(lines=(Claim(1 + n % ITEMS, 1),), hold_for=hold_for, render=lambda _: "{}") for n in numbers
        ]
        with db.begin() as session:
            reservations.reserve(session, requests, routes)
    with environment.connect() as connection:
        connection.execute("VACUUM (ANALYZE)")
        connection.execute("CHECKPOINT")


def _expire(db: sessionmaker[Session], routes: Routes) -> float:
    """Expire all holds as maintenance does. Return holds/s."""
    begun = time.monotonic()
    expired = maintenance.expire(db, threading.Event(), routes)
    took = time.monotonic() - begun
    assert expired == HOLDS, expired
    return expired / took


def _bare_loop(environment: Environment) -> float:
    """Fetch and update the same rows in the same batches, in plain SQL: no stock, history or events. Return holds/s."""
    fetch = (
        "SELECT reservations.*, sku FROM reservations JOIN items ON items.id = item_id"
        " WHERE status = 'PENDING' AND expires_at <= statement_timestamp()"
        f" ORDER BY expires_at LIMIT {maintenance.EXPIRE_BATCH}"
    )
    expire = (
        "UPDATE reservations SET status = 'EXPIRED', version = version + 1, updated_at = clock_timestamp()"
        " WHERE id = ANY(%s)"
    )
    expired = 0
    with psycopg.connect(environment.url) as connection:
        begun = time.monotonic()
        while rows := connection.execute(fetch).fetchall():
            connection.execute(expire, [[row[0] for row in rows]])
            connection.commit()
            expired += len(rows)
        took = time.monotonic() - begun
    assert expired == HOLDS, expired
    return expired / took
