"""Items that another transaction has locked: only the requests for these items wait."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import repeat

import httpx
import pytest
from sqlalchemy import func, select

from api.group_commit import QUEUE_SECONDS
from domain import items
from domain.items import Item
from domain.reservations.table import reservations
from domain.runtime.settings import Settings
from tests.support.api_process import Served, serving
from tests.support.builders import Db, a_hold, an_item, an_overdue_hold, available
from tests.support.callers import Answers, Callers, Ratios, request, reserving
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timed]

#: How long a span is of which a rate is taken.
SPAN_SECONDS = 1.0

#: An answer comes within this time of its deadline, on a machine however busy.
SLACK_SECONDS = 5.0


@contextmanager
def locked(db: Db, *locked: Item) -> Iterator[None]:
    """Lock items, as somebody does who changes them and does not commit."""
    with db.begin() as session:
        items.lock(session, [item.id for item in locked])
        yield


def count(db: Db, item: Item) -> int:
    with db.begin() as session:
        counted = select(func.count()).select_from(reservations).where(reservations.c.item_id == item.id)
        return int(session.execute(counted).scalar_one())


def test_a_locked_item_delays_its_own_requests_only_and_these_not_beyond_their_deadline(
    api: httpx.Client, served: Served, db: Db
) -> None:
    one, *others = [an_item(db, quantity=1_000_000) for _ in range(9)]
    with (
        Callers(served.port, [reserving(item.id) for item in others], rest_seconds=0.05) as free,
        Callers(served.port, [reserving(one.id)] * 8, rest_seconds=0.05) as hot,
    ):
        ratios = Ratios(free)
        for _ in range(2):
            before = free.during(SPAN_SECONDS)
            with locked(db, one):
                ratios.compare(before, free.during(SPAN_SECONDS))
            hot.wait_for(8, 201)
        before = free.during(SPAN_SECONDS)
        with locked(db, one):
            held, answered = count(db, one), len(hot.answers)
            ratios.compare(before, free.during(SPAN_SECONDS))
            hot.wait_for(8, 503)
            busy = hot.answers[answered:]
            assert count(db, one) == held
        hot.wait_for(8, 201)

    # What was answered just before the item was locked may have been noted just after.
    waited = [answer for answer in busy if answer.status == 503]
    assert {answer.status for answer in busy} <= {201, 503}
    assert {answer.problem for answer in waited} == {"busy"}
    assert max(answer.seconds for answer in waited) < QUEUE_SECONDS + SLACK_SECONDS
    assert set(Answers(free.answers, 1).statuses) == {201}
    assert ratios.median >= 0.8


def test_requests_for_several_locked_items_are_answered_when_the_items_are_released(api: httpx.Client, db: Db) -> None:
    *several, free = [an_item(db, quantity=100) for _ in range(4)]

    def reserve(item: Item) -> int:
        return api.post("/reservations", json={"item_id": item.id, "quantity": 1}).status_code

    with ThreadPoolExecutor(30) as threads:
        with locked(db, *several):
            waiting = [threads.submit(reserve, item) for item in several * 10]
            # As long as the requests for the locked items, so they wait as well, were the items in one queue.
            assert [reserve(free) for _ in range(20)] == [201] * 20
            assert not any(one.done() for one in waiting)
        assert [one.result() for one in waiting] == [201] * 30

    assert [available(db, item) for item in [*several, free]] == [90, 90, 90, 80]


def test_changes_that_need_a_locked_item_delay_no_other_change(api: httpx.Client, served: Served, db: Db) -> None:
    """A cancellation gives units back to its item, and so does the confirmation of a hold that has lapsed."""
    one, other = an_item(db, quantity=1_000), an_item(db, quantity=1_000)
    hold, lapsed = a_hold(db, one), an_overdue_hold(db, one)
    holds = [a_hold(db, other).id for _ in range(100)]
    stuck = [
        request("POST", f"/reservations/{hold.id}/cancel", {}),
        request("PATCH", f"/items/by-id/{one.id}", {"name": "New"}),
        request("POST", f"/reservations/{lapsed.id}/confirm", {}),
    ]

    with locked(db, one), Callers(served.port, [repeat(each) for each in stuck * 8]) as waiting:
        waiting.wait_for(2, 503)
        changed = [
            api.post(f"/reservations/{hold}/{to}").status_code
            for to, some in (("cancel", holds[:50]), ("confirm", holds[50:]))
            for hold in some
        ]
        answered = waiting.answers[:]

    assert changed == [200] * 100
    assert {answer.problem for answer in answered} == {"busy"}


def test_two_processes_sell_one_item_exactly_and_neither_starves(db: Db, settings: Settings) -> None:
    item = an_item(db, quantity=1_500)

    with serving(WEB_CONCURRENCY="2") as api, Callers(api.port, [reserving(item.id)] * 16) as clients:
        wait_until("the item is sold out", lambda: available(db, item) == 0)
        clients.wait_for(16, 409)
        faults = api.faults()

    sold = [answer.caller for answer in clients.answers if answer.status == 201]
    assert len(sold) == count(db, item) == 1_500
    assert Answers(clients.answers, 1).statuses.keys() == {201, 409}
    # Each connection belongs to one of the processes.
    assert min(sold.count(caller) for caller in range(16)) >= 1_500 / 16 / 5
    assert faults == []
