"""Availability: what is free of a calendar in a month, with much of it taken and with little."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from random import Random

from sqlalchemy import text
from sqlalchemy.orm import Session

from benchmarks.environment import Environment
from benchmarks.measure import Measure, median
from benchmarks.reservations.calendars import FEW, FIRST, HOUR, MANY, TAKEN_FROM, add_calendars, take
from domain import items
from domain.calendars import Period, snapshot
from domain.items import Item
from domain.runtime import database
from domain.runtime.settings import Settings

MONTH = timedelta(days=31)

MONTHS = 300

BUDGET_MILLISECONDS = 5.0


def availability(environment: Environment) -> Iterator[Measure]:
    """The availability of a month, of calendars with 100,000 reservations and with 100."""
    engine = database.connect(Settings.load(), connections=1, by_index=True)
    for capacity in (1, 10):
        environment.clear()
        add_calendars(environment, 2, capacity=capacity)
        take(environment, FIRST, MANY, capacity)
        take(environment, FIRST + 1, FEW, capacity)
        with database.sessions(engine).begin() as session:
            many, few, trip = _medians(session, Random(capacity))
        yield Measure(
            what=f"availability of a month, {MANY:,} reservations on a calendar of capacity {capacity}, p50",
            measured=f"{many:.2f} ms",
            baseline=f"{FEW} on it {few:.2f} ms: {many / few:.1f} ×; SELECT 1 {trip:.2f} ms: {many / trip:.1f} ×",
            budget=f"≤ {BUDGET_MILLISECONDS:g} ms",
            met=many <= BUDGET_MILLISECONDS,
            numbers={"measured": many, "few": few, "select_1": trip, "budget": BUDGET_MILLISECONDS},
        )
    engine.dispose()


def _medians(session: Session, dice: Random) -> tuple[float, float, float]:
    """Return the median times in milliseconds: of the calendar with many reservations, of the other, of SELECT 1."""
    calendars = [items.get(session, item_id) for item_id in (FIRST, FIRST + 1)]
    took: dict[int, list[float]] = defaultdict(list)
    for _ in range(MONTHS):
        start = TAKEN_FROM + dice.randrange(2 * MANY - MONTH // HOUR) * HOUR
        month = Period(start, start + MONTH)
        for place, calendar in enumerate(calendars):
            took[place].append(_milliseconds(partial(_read, session, calendar, month)))
        took[len(calendars)].append(_milliseconds(lambda: session.execute(text("SELECT 1")).scalar()))
    return median(took[0]), median(took[1]), median(took[2])


def _read(session: Session, calendar: Item, month: Period) -> None:
    (found,) = snapshot(session, [calendar.id], month).availability()
    assert found.steps[0].start == month.start and found.steps[-1].end == month.end


def _milliseconds(act: Callable[[], object]) -> float:
    begun = time.perf_counter()
    act()
    return 1_000 * (time.perf_counter() - begun)
