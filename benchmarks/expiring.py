"""Overdue holds: how fast they are expired and their stock given back."""

import threading
import time
from collections.abc import Iterator
from datetime import timedelta

from benchmarks.environment import ITEMS, Stage
from benchmarks.measure import Measure, median
from domain import reservations
from domain.outbox.routes_file import load
from domain.reservations import Reserve
from domain.runtime import database
from domain.runtime.settings import Settings
from worker import maintenance

HOLDS = 50_000

ROUNDS = 3

BUDGET = 10_000


def expiring(stage: Stage) -> Iterator[Measure]:
    """Holds of 10,000 items, all overdue at once."""
    rates = []
    for _ in range(ROUNDS):
        stage.clear()
        rates.append(_expire(stage))
    yield Measure(
        what="overdue holds expired/s",
        figure=f"{median(rates):,.0f}",
        budget=f"≥ {BUDGET:,}",
        met=median(rates) >= BUDGET,
    )


def _expire(stage: Stage) -> float:
    settings = Settings.load()
    engine = database.connect(settings, connections=1)
    db = database.sessions(engine, routes=load(settings))
    hold_for = timedelta(milliseconds=1)
    for start in range(0, HOLDS, 1_000):
        requests = [Reserve(item=1 + n % ITEMS, quantity=1, hold_for=hold_for) for n in range(start, start + 1_000)]
        with db.begin() as session:
            reservations.reserve(session, requests, lambda _: "{}")
    with stage.connect() as connection:
        connection.execute("VACUUM (ANALYZE)")
        connection.execute("CHECKPOINT")
    begun = time.monotonic()
    expired = maintenance.expire(db, threading.Event())
    took = time.monotonic() - begun
    engine.dispose()
    assert expired == HOLDS, expired
    return expired / took
