"""A long history: drain and reserve with ten million delivered rows, and in an empty database, in turn."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack

from benchmarks.environment import ITEMS, Environment, wait_until
from benchmarks.measure import Measure, compare, median
from benchmarks.outbox.draining import is_drained
from benchmarks.reservations import load

#: Delivered rows of the outbox, recorded over the last six days: older ones would be pruned meanwhile.
ROWS = 10_000_000

#: Until it is confirmed, a reservation has booking.created, reservation_confirm, booking.status_changed and
#: booking.confirmed.
EVENTS_PER_RESERVATION = 4

#: Rows drained in a round, one for each reservation.
EVENTS = 200_000

#: An odd number, so that the median is a round.
ROUNDS = 5

CONNECTIONS = 64

PORTS = {"empty": 8102, "used": 8103}

BUDGET = 0.9


def history(environment: Environment) -> Iterator[Measure]:
    """Drain and reserve after ten million delivered rows, against an empty database."""
    environments = {"empty": environment, "used": environment.with_database("history")}
    environment.clear()
    _fill(environments["used"])
    drained: dict[str, list[float]] = {name: [] for name in environments}
    for _ in range(ROUNDS):
        environment.clear()
        for name, one in environments.items():
            drained[name].append(_drain(one))
    yield _compare("events/s drained to null:", drained)
    for what, items in (("one hot item", 1), ("10,000 items", ITEMS)):
        yield _compare(f"reservations/s over HTTP, {what}", _reserve(environments, items))


def _compare(what: str, rates: Mapping[str, list[float]]) -> Measure:
    # Pairs of neighbouring rounds: the other load of the machine changes slowly, and affects both.
    ratio = median([used / empty for empty, used in zip(rates["empty"], rates["used"], strict=True)])
    return compare(
        f"{what}, after {ROWS / 1e6:g} million delivered rows",
        median(rates["used"]),
        median(rates["empty"]),
        named=f"empty (median of {ROUNDS} pairs)",
        at_least=BUDGET,
        ratio=ratio,
    )


def _fill(environment: Environment) -> None:
    """Write six days' reservations, all of them confirmed, their delivered events, and the keys of the last hours."""
    environment.clear()
    with environment.connect() as connection:
        # What is written here is consistent, and checking millions of references takes minutes.
        connection.execute("SET session_replication_role = replica")
        numbers = {"reservations": ROWS // EVENTS_PER_RESERVATION, "items": ITEMS, "events": EVENTS_PER_RESERVATION}
        for statement in (RESERVATIONS, HISTORY, KEYS, DELIVERED):
            connection.execute(statement, numbers)
        connection.execute("VACUUM (ANALYZE)")
        connection.execute("CHECKPOINT")


#: Ids are of version 7, as the product makes them, and as old as their rows.
RESERVATIONS = """
    INSERT INTO reservations (id, item_id, quantity, status, version, expires_at, created_at, confirmed_at)
    SELECT uuidv7(-age), 1 + n %% %(items)s, 1, 'CONFIRMED', 2, now() - age, now() - age, now() - age
    FROM (SELECT n, interval '6 days' * (1 - n / %(reservations)s::float) AS age
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
    FROM reservations WHERE created_at > now() - interval '20 hours'
"""

PAYLOAD = """
    jsonb_build_object('booking_id', made.id, 'item_id', 1, 'sku', 'sku-1', 'quantity', 1, 'status', 'PENDING',
                       'version', 1, 'guest_id', NULL, 'expires_at', '2026-01-01T00:00:00+00:00')
"""

#: The lane is `lane_of` in SQL.
DELIVERED = f"""
    INSERT INTO outbox (event_id, destination, lane, aggregate_id, type, payload, created_at, processed_at)
    SELECT uuidv7(created_at - now()), 'null', get_byte(uuid_send(id), 15) %% 32, id, 'booking.created', {PAYLOAD},
           created_at, created_at + interval '20 ms'
    FROM reservations AS made, generate_series(1, %(events)s) ORDER BY made.id
"""

READY = f"""
    INSERT INTO outbox (event_id, destination, lane, aggregate_id, type, payload)
    SELECT uuidv7(), 'null', get_byte(uuid_send(id), 15) %% 32, id, 'booking.created', {PAYLOAD}
    FROM (SELECT uuidv7() AS id FROM generate_series(1, %(events)s)) AS made
"""


def _drain(environment: Environment) -> float:
    """Record events and let `bin/worker` drain them. Return events/s, by the database's clock."""
    with environment.connect() as connection:
        connection.execute(READY, {"events": EVENTS})
        connection.execute("VACUUM (ANALYZE) outbox")
        connection.execute("CHECKPOINT")
        worker = environment.running("bin/worker", "--processes", "1", "--threads", "4")
        with worker, environment.running("bin/scheduler"):
            wait_until(lambda: is_drained(connection), seconds=120)
        took = connection.execute(TOOK, {"events": EVENTS}).fetchone()
    assert took is not None
    return EVENTS / float(str(took[0]))


TOOK = """
    SELECT extract(epoch FROM max(processed_at) - min(processed_at))
    FROM (SELECT processed_at FROM outbox ORDER BY id DESC LIMIT %(events)s) drained
"""


def _reserve(environments: Mapping[str, Environment], items: int) -> Mapping[str, list[float]]:
    rates: dict[str, list[float]] = {name: [] for name in environments}
    with ExitStack() as serving:
        for name, environment in environments.items():
            serving.enter_context(environment.serving("api.main:load_app", PORTS[name]))
        for _ in range(ROUNDS):
            for name in environments:
                rates[name].append(load.reserve(PORTS[name], connections=CONNECTIONS, items=items).rate)
    return rates
