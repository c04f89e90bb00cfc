"""The outbox: how fast one worker process drains it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import psycopg

from benchmarks.environment import Connection, Environment, wait_until
from benchmarks.measure import Measure, compare, median, resident_memory

EVENTS = 200_000

#: As in a busy shop: a few events for each reservation.
EVENTS_PER_AGGREGATE = 5

ROUNDS = 3

#: What the bare loop settles at a time. The relay's batches have the same size.
BATCH = 1_000


def draining(environment: Environment) -> Iterator[Measure]:
    """The drain of the outbox by one worker process, against a bare SQL loop."""
    ours, bare, memory = [], [], 0
    for _ in range(ROUNDS):
        fill(environment)
        rate, memory = drain(environment)
        ours.append(rate)
        fill(environment)
        bare.append(_bare_loop(environment))
    yield compare(
        "events/s drained to null:, one worker process, ordered and fenced",
        median(ours),
        median(bare),
        named="bare SQL loop",
        at_least=0.9,
    )
    yield resident_memory("a worker process", memory)


def fill(environment: Environment, *, backlog: int = 0) -> None:
    """Clear the database, and record EVENTS. A backlog of that many events, which wait for a retry, is older."""
    environment.clear()
    with environment.connect() as connection:
        connection.execute("SELECT setseed(0.5)")
        record(connection, backlog)
        connection.execute("UPDATE outbox SET attempts = 1, available_at = now() + interval '1 hour'")
        record(connection, EVENTS)
        connection.execute("VACUUM (ANALYZE) outbox")
        connection.execute("CHECKPOINT")


def record(connection: Connection, events: int) -> None:
    """Record that many events of new aggregates, in one statement."""
    connection.execute(FILL, {"events": events, "aggregates": events // EVENTS_PER_AGGREGATE})


#: Events as reservations record them, of aggregates in turn. The lane is `lane_of` in SQL.
FILL = """
    WITH aggregates AS (SELECT n, gen_random_uuid() AS id FROM generate_series(0, %(aggregates)s - 1) n)
    INSERT INTO outbox (event_id, destination, lane, aggregate_id, type, payload)
    SELECT gen_random_uuid(), 'null', get_byte(uuid_send(a.id), 15) %% 32, a.id, 'booking.created',
           jsonb_build_object('booking_id', a.id, 'item_id', 1, 'sku', 'sku-1', 'quantity', 1, 'status', 'PENDING',
                              'version', 1, 'guest_id', NULL, 'expires_at', '2026-01-01T00:00:00+00:00')
    FROM generate_series(0, %(events)s - 1) e JOIN aggregates a ON a.n = e %% %(aggregates)s ORDER BY e
"""


def drain(environment: Environment, *, processes: int = 1) -> tuple[float, int]:
    """Let `bin/worker` drain what is recorded.

    Return events/s by the database's clock, and the memory of the largest process in bytes.
    """
    worker = environment.running("bin/worker", "--processes", str(processes), "--threads", "4")
    with environment.connect() as connection, worker as process, environment.running("bin/scheduler"):
        # A process that starts while others already drain would take the processor from them.
        connection.execute("UPDATE outbox_destinations SET paused = true")
        wait_until(lambda: connections(connection) >= processes)
        connection.execute("UPDATE outbox_destinations SET paused = false")
        wait_until(lambda: is_drained(connection), seconds=120)
        memory = max(child.memory_info().rss for child in psutil.Process(process.pid).children(recursive=True))
        return rate(connection), memory


@contextmanager
def workers(environment: Environment, *, processes: int) -> Iterator[Connection]:
    """Run worker processes and a scheduler while the block runs, which begins when all of them are ready."""
    running = environment.running("bin/worker", "--processes", str(processes), "--threads", "4")
    with environment.connect() as connection, running, environment.running("bin/scheduler"):
        wait_until(lambda: connections(connection) >= processes)
        yield connection


def connections(connection: Connection) -> int:
    """Return how many connections the product has to this database, after a short pause.

    Each worker process has had one since it started.
    """
    time.sleep(0.1)
    found = connection.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'holdfast' AND datname = current_database()"
    ).fetchone()
    return int(str(found[0])) if found else 0


def is_drained(connection: Connection) -> bool:
    """Return whether no event for null: is ready, after a short pause: a query at every moment would slow the drain."""
    time.sleep(0.1)
    # PostgreSQL answers this from the index of ready rows. To count the rows would slow the drain.
    found = connection.execute(
        "SELECT EXISTS (SELECT FROM outbox WHERE destination = 'null' AND processed_at IS NULL"
        " AND dead_at IS NULL AND available_at IS NULL)"
    ).fetchone()
    return found == (False,)


def rate(connection: Connection, *, after: int = 0) -> float:
    """Return the rate at which the events after that id were settled, from the first to the last one."""
    found = connection.execute(
        "SELECT count(*) / extract(epoch FROM max(processed_at) - min(processed_at))::float"
        " FROM outbox WHERE processed_at IS NOT NULL AND id > %s",
        [after],
    ).fetchone()
    assert found is not None
    return float(str(found[0]))


def _bare_loop(environment: Environment) -> float:
    """Fetch and update the same rows in the same batches, in plain SQL: no order, fence or lanes. Return events/s."""
    fetch = (
        "SELECT id, event_id, aggregate_id, type, payload::text, headers::text, attempts, created_at FROM outbox"
        " WHERE destination = 'null' AND processed_at IS NULL AND dead_at IS NULL AND available_at IS NULL AND id > %s"
        f" ORDER BY id LIMIT {BATCH}"
    )
    settle = "UPDATE outbox SET processed_at = clock_timestamp() WHERE id = ANY(%s)"
    with psycopg.connect(environment.url) as connection:
        begun, last = time.monotonic(), 0
        while rows := connection.execute(fetch, [last]).fetchall():
            connection.execute(settle, [[row[0] for row in rows]])
            connection.commit()
            last = rows[-1][0]
        return EVENTS / (time.monotonic() - begun)
