"""A week's history: drain and reserve beside ten million delivered rows, and beside none, in turn."""

import copy
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace

import psycopg

from benchmarks.environment import ITEMS, Stage, wait_until
from benchmarks.measure import Measure, load, median

#: Delivered rows of the outbox, recorded over the last week.
ROWS = 10_000_000

#: Made, asked for, changed, confirmed: what one reservation promises until it is confirmed.
PROMISES = 4

#: Rows drained in a round, of reservations that made one promise each.
EVENTS = 200_000

#: An odd number, so that the median is a round.
ROUNDS = 5

SECONDS = 6

CONNECTIONS = 64

PORTS = {"empty": 8102, "old": 8103}

BUDGET = 0.9


def history(stage: Stage) -> Iterator[Measure]:
    """The same work on two databases of one server: one that is new, one that has been used for a week."""
    stages = {"empty": stage, "old": _beside(stage)}
    stage.clear()
    _grow_old(stages["old"])
    drained: dict[str, list[float]] = {name: [] for name in stages}
    for _ in range(ROUNDS):
        stage.clear()
        for name, one in stages.items():
            drained[name].append(_drain(one))
    yield _measure("events/s drained to null:", drained)
    for what, items in (("one hot item", 1), ("10,000 items", ITEMS)):
        yield _measure(f"reservations/s over HTTP, {what}", _reserve(stages, items))


def _measure(what: str, rates: Mapping[str, list[float]]) -> Measure:
    # Pairs of neighbouring rounds: what else the machine does changes slowly, and hits both.
    ratio = median([old / empty for empty, old in zip(rates["empty"], rates["old"], strict=True)])
    return Measure(
        what=f"{what}, after {ROWS / 1e6:g} million delivered rows",
        figure=f"{median(rates['old']):,.0f}",
        baseline=f"empty {median(rates['empty']):,.0f}: {ratio:.0%} (median of {ROUNDS} pairs)",
        budget=f"≥ {BUDGET:.0%}",
        met=ratio >= BUDGET,
    )


def _beside(stage: Stage) -> Stage:
    """Return the stage with another database of the same server in place of its own."""
    postgresql = copy.copy(stage.postgresql)
    postgresql.url = stage.postgresql.create("history")
    beside = replace(stage, postgresql=postgresql, environment={**stage.environment, "DATABASE_URL": postgresql.url})
    with beside.running("bin/migrate") as migrating:
        assert migrating.wait() == 0
    return beside


def _grow_old(stage: Stage) -> None:
    """Write a week's reservations, all of them confirmed and told, and the keys of the last day."""
    stage.clear()
    with stage.connect() as connection:
        # What is written here is consistent, and checking millions of references takes minutes.
        connection.execute("SET session_replication_role = replica")
        for statement in (RESERVATIONS, HISTORY, KEYS, PROMISED):
            connection.execute(statement, {"reservations": ROWS // PROMISES, "items": ITEMS, "promises": PROMISES})
        connection.execute("VACUUM (ANALYZE)")
        connection.execute("CHECKPOINT")


#: Ids are of version 7, as the product makes them, and as old as their rows.
RESERVATIONS = """
    INSERT INTO reservations (id, item_id, quantity, status, version, expires_at, created_at, confirmed_at)
    SELECT uuidv7(-age), 1 + n %% %(items)s, 1, 'CONFIRMED', 2, now() - age, now() - age, now() - age
    FROM (SELECT n, interval '7 days' * (1 - n / %(reservations)s::float) AS age
          FROM generate_series(1, %(reservations)s) n) made
"""

HISTORY = """
    INSERT INTO reservation_history (reservation_id, from_status, to_status, changed_by, created_at)
    SELECT id, from_status, to_status, 'system', created_at
    FROM reservations, (VALUES (NULL, 'PENDING'), ('PENDING', 'CONFIRMED')) AS step (from_status, to_status) ORDER BY id
"""

KEYS = """
    INSERT INTO idempotency_requests
        (client_id, operation, idempotency_key, payload_hash, reservation_id, answer, created_at)
    SELECT 'anonymous', 'reserve', id, md5(id::text) || md5(id::text), id, repeat('{"answer": "as it was"} ', 20),
           created_at
    FROM reservations WHERE created_at > now() - interval '1 day'
"""

PAYLOAD = """
    jsonb_build_object('booking_id', made.id, 'item_id', 1, 'sku', 'sku-1', 'quantity', 1, 'status', 'PENDING',
                       'version', 1, 'guest_id', NULL, 'expires_at', '2026-01-01T00:00:00+00:00')
"""

#: The lane is `lane_of` in SQL.
PROMISED = f"""
    INSERT INTO outbox (event_id, destination, lane, aggregate_id, type, payload, created_at, processed_at)
    SELECT uuidv7(created_at - now()), 'null', get_byte(uuid_send(id), 15) %% 32, id, 'booking.created', {PAYLOAD},
           created_at, created_at + interval '20 ms'
    FROM reservations AS made, generate_series(1, %(promises)s) ORDER BY made.id
"""

DUE = f"""
    INSERT INTO outbox (event_id, destination, lane, aggregate_id, type, payload)
    SELECT uuidv7(), 'null', get_byte(uuid_send(id), 15) %% 32, id, 'booking.created', {PAYLOAD}
    FROM (SELECT uuidv7() AS id FROM generate_series(1, %(events)s)) AS made
"""


def _drain(stage: Stage) -> float:
    """Record events and let `bin/worker` drain them. Return events/s, by the database's clock."""
    with stage.connect() as connection:
        connection.execute(DUE, {"events": EVENTS})
        connection.execute("VACUUM (ANALYZE) outbox")
        connection.execute("CHECKPOINT")
        worker = stage.running("bin/worker", "--processes", "1", "--threads", "4")
        with worker, stage.running("bin/scheduler"):
            wait_until(lambda: _is_dry(connection), seconds=120)
        took = connection.execute(TOOK, {"events": EVENTS}).fetchone()
    assert took is not None
    return EVENTS / float(str(took[0]))


def _is_dry(connection: psycopg.Connection[tuple[object, ...]]) -> bool:
    time.sleep(0.1)
    # The planner answers from the index of ready rows; counting them would slow the drain.
    ready = "destination = 'null' AND processed_at IS NULL AND dead_at IS NULL AND available_at IS NULL"
    return connection.execute(f"SELECT EXISTS (SELECT FROM outbox WHERE {ready})").fetchone() == (False,)


TOOK = """
    SELECT extract(epoch FROM max(processed_at) - min(processed_at))
    FROM (SELECT processed_at FROM outbox ORDER BY id DESC LIMIT %(events)s) drained
"""


def _reserve(stages: Mapping[str, Stage], items: int) -> Mapping[str, list[float]]:
    reserved: dict[str, list[float]] = {name: [] for name in stages}
    with ExitStack() as serving:
        for name, stage in stages.items():
            serving.enter_context(stage.serving("api.app:create_app", PORTS[name]))
        for _ in range(ROUNDS):
            for name in stages:
                reserved[name].append(_sold(PORTS[name], items))
    return reserved


def _sold(port: int, items: int) -> float:
    seen = load(port, connections=CONNECTIONS, seconds=SECONDS, items=items, run=secrets.token_hex(4))
    assert seen.refused == 0, f"{seen.refused} answers were not 201"
    return seen.rate
