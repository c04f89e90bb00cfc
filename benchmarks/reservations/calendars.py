"""Time of calendars: reserved over HTTP, against a textbook; and with much of it taken already."""

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from random import Random

from sqlalchemy.orm import Session, sessionmaker

from benchmarks.environment import ITEMS, Environment
from benchmarks.measure import Measure, compare, median
from benchmarks.reservations import load
from benchmarks.reservations.reserving import APP, CONNECTIONS, ROUNDS
from domain import reservations
from domain.calendars import Period
from domain.fulfilment import load_routes
from domain.idempotency import Answered
from domain.outbox import Routes
from domain.reservations import Claim, Reserve
from domain.runtime import database
from domain.runtime.settings import Settings

OURS, TEXTBOOK = 8110, 8111

APPS = {OURS: APP, TEXTBOOK: "benchmarks.reservations.time_textbook:create_app"}

#: The first calendar has the id after the last item of stock.
FIRST = ITEMS + 1
CALENDARS = 1_001

#: The number of calendars, the id of the first one, and how many times the textbook's rate is the budget.
BUDGETS = {"one calendar": (1, FIRST, 6), "1,000 calendars": (1_000, FIRST + 1, 5)}

#: Each measurement has years of its own, in which all time is free.
FIRST_YEAR, YEARS = 2030, 4


def calendars(environment: Environment) -> Iterator[Measure]:
    """Reservations of time, against an exclusion constraint; and with 100,000 reservations there, against 100."""
    environment.clear()
    add_calendars(environment, CALENDARS, capacity=1)
    rates: dict[tuple[str, int], list[float]] = defaultdict(list)
    years = iter(range(FIRST_YEAR, 2200, YEARS))
    with ExitStack() as serving:
        for port, app in APPS.items():
            serving.enter_context(environment.serving(app, port))
        for _ in range(ROUNDS):
            for what, (number, first, _) in BUDGETS.items():
                for port in APPS:
                    start = datetime(next(years), 1, 1, tzinfo=UTC)
                    measured = load.reserve_time(
                        port, connections=CONNECTIONS, calendars=number, first=first, start=start
                    )
                    rates[what, port].append(measured.rate)
    for what, (_, _, budget) in BUDGETS.items():
        yield compare(
            f"reservations of time/s over HTTP, {what} of capacity 1, {CONNECTIONS} connections",
            median(rates[what, OURS]),
            median(rates[what, TEXTBOOK]),
            named="textbook with an exclusion constraint",
            at_least=budget,
        )
    yield from _much_taken(environment)


def add_calendars(environment: Environment, number: int, *, capacity: int) -> None:
    """Create calendars, whose skus are `calendar-`, the capacity, `-` and a number from 1 on."""
    with environment.connect() as connection:
        connection.execute(
            "INSERT INTO items (sku, name, kind, capacity, time_zone, buffer_before_seconds, buffer_after_seconds)"
            " SELECT format('calendar-%%s-%%s', %(capacity)s, n), 'Room', 'calendar', %(capacity)s, 'UTC', 0, 0"
            " FROM generate_series(1, %(number)s) AS n",
            {"capacity": capacity, "number": number},
        )


#: The reservations that a calendar has already, and those of the one that it is compared with.
MANY, FEW = 100_000, 100

#: Every other hour is taken by the many, and from time to time one by the few.
TAKEN_FROM = datetime(2030, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)

#: As many as the connections of the other measurements have in one set.
SET_SIZE = CONNECTIONS

SETS = 60


def _much_taken(environment: Environment) -> Iterator[Measure]:
    """Reserve on calendars with many reservations and with few, in turn. No set is kept, so the few remain few."""
    settings = Settings.load()
    engine = database.connect(settings, connections=1, by_index=True)
    db, routes = database.sessions(engine), load_routes(settings)
    for capacity in (1, 10):
        environment.clear()
        add_calendars(environment, 2, capacity=capacity)
        take(environment, FIRST, MANY, capacity)
        take(environment, FIRST + 1, FEW, capacity)
        dice = Random(capacity)
        took: dict[int, list[float]] = defaultdict(list)
        for _ in range(SETS):
            for item_id in (FIRST, FIRST + 1):
                took[item_id].append(_reserve_a_set(db, routes, item_id, dice))
        many, few = (SET_SIZE / median(took[item_id]) for item_id in (FIRST, FIRST + 1))
        yield compare(
            f"reservations of time/s in sets of {SET_SIZE}, {MANY:,} reservations on a calendar of capacity {capacity}",
            many,
            few,
            named=f"{FEW} on it",
            at_least=0.8,
        )
    engine.dispose()


def take(environment: Environment, item_id: int, number: int, capacity: int, *, every: int | None = None) -> None:
    """Reserve so many hours of a calendar, each so many hours after the one before."""
    with environment.connect() as connection:
        connection.execute("SET session_replication_role = replica")
        taken = {"item_id": item_id, "number": number, "every": every or 2 * MANY // number, "from": TAKEN_FROM}
        connection.execute(RESERVATIONS, taken)
        connection.execute(OCCUPANCIES, {"item_id": item_id, "is_exclusive": capacity == 1})
        connection.execute("VACUUM (ANALYZE)")
        connection.execute("CHECKPOINT")


RESERVATIONS = """
    INSERT INTO reservations (id, item_id, quantity, status, guest_id, starts_at, ends_at, confirmed_at)
    SELECT uuidv7(), %(item_id)s, 1, 'CONFIRMED', 'guest-' || n, start, start + interval '1 hour', now()
    FROM (SELECT n, %(from)s::timestamptz + n * %(every)s * interval '1 hour' AS start
          FROM generate_series(0, %(number)s - 1) AS n) AS made
"""

OCCUPANCIES = """
    INSERT INTO calendar_occupancies
        (reservation_id, position, item_id, units, blocked_from, blocked_until, is_exclusive)
    SELECT id, 1, item_id, quantity, starts_at, ends_at, %(is_exclusive)s FROM reservations WHERE item_id = %(item_id)s
"""


def _reserve_a_set(db: sessionmaker[Session], routes: Routes, item_id: int, dice: Random) -> float:
    """Reserve hours that nobody has taken, and roll back. Return how many seconds the reservations took."""
    requests = [_request(item_id, 1 + 2 * hour) for hour in dice.sample(range(MANY), SET_SIZE)]
    with db() as session:
        begun = time.perf_counter()
        outcomes: Sequence[object] = reservations.reserve(session, requests, routes)
        took = time.perf_counter() - begun
        session.rollback()
    assert all(isinstance(outcome, Answered) for outcome in outcomes), "an hour was taken"
    return took


def _request(item_id: int, hour: int) -> Reserve:
    start = TAKEN_FROM + hour * HOUR
    period = Period(start, start + HOUR)
    return Reserve(lines=(Claim(item_id, 1, period),), hold_for=timedelta(minutes=15), render=lambda made: str(made.id))
