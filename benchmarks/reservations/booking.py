"""Bookings: made over HTTP against plain reservations, and taken through all their steps by outside services."""

import asyncio
import secrets
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import cast

import httpx

from benchmarks.environment import Connection, Environment, wait_until
from benchmarks.measure import Measure, compare, median
from benchmarks.reservations import load
from benchmarks.reservations.calendars import FIRST, FIRST_YEAR, YEARS, add_calendars
from benchmarks.reservations.reserving import APP, CONNECTIONS

API, PARTNERS = 8112, 8113

#: The venues with one calendar each.
VENUES = 1_000

#: The more rounds, the less a noisy moment counts.
ROUNDS = 5

#: Bookings a second, and for how long, on calendars that have room for all.
RATE, SECONDS, WARM_UP_SECONDS = 100, 20, 4

#: How long each service takes to answer.
LATENCY_SECONDS = 0.02

#: The time from a booking to its confirmation, through all four steps.
MOST_P50, MOST_P99 = 250, 1_000

#: How long all services are down, at this rate, and how soon after their return nothing may be left to do.
OUTAGE_SECONDS, OUTAGE_RATE, CAUGHT_UP_SECONDS = 60, 50, 20


def booking(environment: Environment) -> Iterator[Measure]:
    """Bookings made, against reservations of the same time."""
    environment.clear()
    _add_venues(environment, capacity=1)
    rates: dict[bool, list[float]] = defaultdict(list)
    years = iter(range(FIRST_YEAR, 2200, YEARS))
    with environment.serving(APP, API):
        for number in range(2 * ROUNDS):
            is_booking = bool(number % 2)
            start = datetime(next(years), 1, 1, tzinfo=UTC)
            measured = load.reserve_time(
                API, connections=CONNECTIONS, calendars=VENUES, first=FIRST, start=start, as_bookings=is_booking
            )
            rates[is_booking].append(measured.rate)
    yield compare(
        f"bookings/s over HTTP, {VENUES:,} venues, {CONNECTIONS} connections",
        median(rates[True]),
        median(rates[False]),
        named="plain reservations of the same time",
        at_least=0.8,
    )


def booking_steps(environment: Environment) -> Iterator[Measure]:
    """The time from a booking to its confirmation by four services."""
    with _with_services(environment):
        asyncio.run(_book(RATE, WARM_UP_SECONDS))
        begun = time.time()
        asyncio.run(_book(RATE, SECONDS))
        with environment.connect() as connection:
            wait_until(lambda: not _pending(connection))
            p50, p99 = _percentiles(connection, begun)
            lost = RATE * SECONDS - _confirmed(connection, begun)
    yield Measure(
        what=f"booking → confirmed through four services of {LATENCY_SECONDS * 1_000:.0f} ms, {RATE}/s",
        measured=f"p50 {p50:.0f} ms, p99 {p99:.0f} ms",
        budget=f"p50 ≤ {MOST_P50} ms, p99 ≤ {MOST_P99} ms",
        met=p50 <= MOST_P50 and p99 <= MOST_P99 and not lost,
        numbers={"p50_milliseconds": p50, "p99_milliseconds": p99, "not_confirmed": lost},
    )


def booking_outage(environment: Environment) -> Iterator[Measure]:
    """All services are down for a minute, while bookings go on."""
    with _with_services(environment):
        asyncio.run(_book(OUTAGE_RATE, WARM_UP_SECONDS))
        begun = time.time()
        _set_knobs(outage=True)
        asyncio.run(_book(OUTAGE_RATE, OUTAGE_SECONDS))
        _set_knobs(outage=False)
        back = time.monotonic()
        with environment.connect() as connection:
            wait_until(lambda: not _pending(connection), seconds=10 * CAUGHT_UP_SECONDS)
            took = time.monotonic() - back
            lost = OUTAGE_RATE * OUTAGE_SECONDS - _confirmed(connection, begun)
    yield Measure(
        what=f"all services down for {OUTAGE_SECONDS} s, {OUTAGE_RATE} bookings/s: all is done after their return",
        measured=f"after {took:.1f} s; {lost} not confirmed",
        budget=f"≤ {CAUGHT_UP_SECONDS} s; none",
        met=took <= CAUGHT_UP_SECONDS and not lost,
        numbers={"seconds": took, "not_confirmed": lost},
    )


@contextmanager
def _with_services(environment: Environment) -> Iterator[None]:
    """Run an API, workers, and services that answer after a while."""
    environment.clear()
    _add_venues(environment, capacity=1_000_000)
    urls = {
        name: f"http://127.0.0.1:{PARTNERS}/{path}"
        for name, path in (
            ("INVENTORY_URL", "inventory"),
            ("PRICING_URL", "pricing"),
            ("PAYMENT_URL", "payment"),
            ("CONFIRMATION_URL", "confirmations"),
        )
    }
    partners = (sys.executable, "-m", "examples.partners.app", "--port", str(PARTNERS))
    with ExitStack() as running:
        running.enter_context(environment.running(*partners))
        wait_until(_partners_answer)
        _set_knobs()
        running.enter_context(environment.serving(APP, API, **urls))
        running.enter_context(environment.running("bin/worker", "--processes", "1", "--threads", "8", **urls))
        running.enter_context(environment.running("bin/scheduler", **urls))
        yield


def _add_venues(environment: Environment, *, capacity: int) -> None:
    """Create venues from `venue-1` on, with one calendar each."""
    add_calendars(environment, VENUES, capacity=capacity)
    with environment.connect() as connection:
        connection.execute(
            "UPDATE items SET venue = 'venue-' || (id - %s), price_amount = 30, price_currency = 'EUR',"
            " price_per = 'unit' WHERE kind = 'calendar'",
            [FIRST - 1],
        )


def _partners_answer() -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{PARTNERS}/knobs").is_success
    except httpx.HTTPError:
        return False


def _set_knobs(*, outage: bool = False) -> None:
    one = {"latency_seconds": LATENCY_SECONDS, "outage": outage}
    knobs = one | dict.fromkeys(("inventory", "pricing", "payment"), one)
    httpx.put(f"http://127.0.0.1:{PARTNERS}/knobs", json=knobs).raise_for_status()


async def _book(rate: int, seconds: int) -> None:
    """Send bookings at a steady rate, whether or not the earlier ones are answered."""
    run = secrets.token_hex(4)
    async with (
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{API}", timeout=30) as client,
        asyncio.TaskGroup() as requests,
    ):
        begun = time.monotonic()
        for n in range(rate * seconds):
            await asyncio.sleep(max(0.0, begun + n / rate - time.monotonic()))
            body = {
                "venue_id": f"venue-{1 + n % VENUES}",
                "booking_date": "2030-05-03",
                "booking_time": "19:30",
                "duration_minutes": 120,
                "party_size": 2,
                "idempotency_key": f"{run}-{n}",
            }
            requests.create_task(client.post("/api/v1/bookings", json=body))


#: Bookings that are not settled, and steps that are not done.
PENDING = """
    SELECT (SELECT count(*) FROM reservations WHERE status = 'PENDING')
        + (SELECT count(*) FROM outbox WHERE processed_at IS NULL AND dead_at IS NULL AND destination <> 'null')
"""


def _pending(connection: Connection) -> int:
    found = connection.execute(PENDING).fetchone()
    assert found is not None
    return cast(int, found[0])


def _confirmed(connection: Connection, begun: float) -> int:
    found = connection.execute(
        "SELECT count(*) FROM reservations WHERE status = 'CONFIRMED' AND created_at > to_timestamp(%s)", [begun]
    ).fetchone()
    assert found is not None
    return cast(int, found[0])


def _percentiles(connection: Connection, begun: float) -> tuple[float, float]:
    """Return the median and the 99th percentile, in milliseconds, of bookings made since that time."""
    found = connection.execute(
        "SELECT percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP"
        " (ORDER BY extract(epoch FROM confirmed_at - created_at) * 1000)"
        " FROM reservations WHERE created_at > to_timestamp(%s) AND confirmed_at IS NOT NULL",
        [begun],
    ).fetchone()
    assert found is not None
    p50, p99 = cast(Sequence[float], found[0])
    return p50, p99
