"""Streaming what overlaps a window: the same as pages show, merged from indexes without sorting."""

import random
from dataclasses import replace
from datetime import timedelta
from itertools import product

import pytest
from sqlalchemy import text
from sqlalchemy.dialects import postgresql

from domain import reservations
from domain.reservations import Filter, Window, streaming
from domain.reservations.lifecycle import Status
from domain.reservations.streaming import BEGINNING, stream
from domain.runtime.database import READ_IN_INDEX_ORDER
from tests.support.builders import FRIDAY, Db, a_basket, a_calendar, a_time_hold, hours, let_lapse, reserve

WINDOWS = (
    Window(),
    Window(ends_after=FRIDAY + timedelta(hours=10)),
    Window(starts_before=FRIDAY + timedelta(hours=40)),
    Window(ends_after=FRIDAY + timedelta(hours=10), starts_before=FRIDAY + timedelta(hours=12)),
)
FILTERS = tuple(
    Filter(guest_id=guest, sku=sku, status=status)
    for guest, sku, status in product((None, "ann"), (None, "a", "b", "nowhere"), (None, *Status))
)


@pytest.fixture
def many(db: Db) -> Db:
    """Reservations of all classes of durations, with users, statuses, and some of two items."""
    dice = random.Random(9)
    a, b = (a_calendar(db, capacity=100, sku=sku) for sku in ("a", "b"))
    for number in range(60):
        start = dice.randrange(100)
        period = hours(start, start + dice.choice([0.5, 1, 3, 20, 100, 2_000, 10_000]))
        status = dice.choice([Status.PENDING, Status.CONFIRMED, Status.BLOCKED])
        guest = dice.choice(["ann", "ben", None])
        hold = a_time_hold(db, dice.choice([a, b]), period, status=status, guest_id=guest)
        if number % 5 == 0 and status is Status.PENDING:
            let_lapse(db, hold.id)
    period = hours(11, 13)
    basket = a_basket((a, 1), (b, 1))
    claims = tuple(claim._replace(period=period) for claim in basket.lines)
    reserve(db, a_time_basket(basket, claims))
    return db


def a_time_basket(basket: reservations.Reserve, claims: tuple[reservations.Claim, ...]) -> reservations.Reserve:
    return replace(basket, lines=claims)


@pytest.mark.parametrize("window", WINDOWS, ids=range(len(WINDOWS)))
def test_a_stream_has_what_the_pages_have_in_their_order(many: Db, window: Window) -> None:
    for wanted in FILTERS:
        with many() as session:
            streamed = [one.id for part in stream(session, wanted, window, size=7) for one in part]
        with many() as session:
            page = reservations.find_overlapping(session, wanted, window, limit=1_000)
        assert streamed == [one.id for one in page.reservations], wanted


def test_a_stream_continues_after_any_place(many: Db) -> None:
    with many() as session:
        every = [one for part in stream(session, Filter(), Window(), size=100) for one in part]
        for place, one in enumerate(every):
            (rest,) = [*stream(session, Filter(), Window(), after=one.place, size=1_000)] or [[]]
            assert rest == every[place + 1 :]


@pytest.mark.parametrize("window", WINDOWS, ids=range(len(WINDOWS)))
def test_no_stream_is_sorted(many: Db, window: Window) -> None:
    for guest, item, status in product((None, "ann"), (None, 1), (None, *Status)):
        given = {"guest_id": guest, "item_id": item}
        values = {name: value for name, value in given.items() if value is not None}
        statement = streaming._statement(values, status, window, BEGINNING)
        compiled = statement.compile(
            dialect=postgresql.dialect(),  # type: ignore[no-untyped-call]
            compile_kwargs={"literal_binds": True},
        )
        with many() as session:
            session.execute(READ_IN_INDEX_ORDER)
            plan = "\n".join(session.execute(text(f"EXPLAIN {compiled}".replace(":", "\\:"))).scalars())
        assert "Merge Append" in plan, plan
        assert "Sort  " not in plan and "Seq Scan on reservations" not in plan, plan
