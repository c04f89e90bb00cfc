"""An item with 100,000 overdue holds: its requests get what they need of them, and all others what they had before."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import cycle

import httpx
import pytest
from sqlalchemy import func, select, text

from domain.items import Item
from domain.reservations.lifecycle import Status
from domain.reservations.table import reservations
from tests.support.api_process import Served
from tests.support.builders import Db, an_item, available
from tests.support.callers import Callers, Ratios, request, reserving
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.alone]

OVERDUE = 100_000

#: Overdue holds of one unit each, and as many units of confirmed reservations, which are not written.
ADD_HOLDS = text("""
    INSERT INTO reservations (id, item_id, quantity, status, expires_at)
    SELECT gen_random_uuid(), :item, 1, 'PENDING', now() - interval '1 minute' FROM generate_series(1, :count)
""")


def an_item_with_overdue_holds(db: Db, count: int) -> Item:
    """An item whose units belong to overdue holds, and as many to others."""
    item = an_item(db, quantity=2 * count)
    with db.begin() as session:
        session.execute(text("UPDATE items SET available_quantity = 0 WHERE id = :item"), {"item": item.id})
        session.execute(ADD_HOLDS, {"item": item.id, "count": count})
    return item


def expired(db: Db) -> int:
    with db.begin() as session:
        counted = select(func.count()).select_from(reservations).where(reservations.c.status == Status.EXPIRED)
        return int(session.execute(counted).scalar_one())


def reserve(api: httpx.Client, item: Item, quantity: int) -> httpx.Response:
    return api.post("/reservations", json={"item_id": item.id, "quantity": quantity})


def test_a_request_gets_what_overdue_holds_keep_and_no_hold_is_expired_that_it_does_not_need(
    api: httpx.Client, served: Served, db: Db
) -> None:
    item = an_item_with_overdue_holds(db, OVERDUE)

    # More than was ever in stock, more than the stock that is not confirmed, and one more than there could be.
    for quantity in (2 * OVERDUE + 1, 2 * OVERDUE, OVERDUE + 1):
        refused = reserve(api, item, quantity)
        assert refused.status_code == 409, refused.text
        assert refused.json()["type"] == "/problems/sold-out"
    assert expired(db) == 0

    for quantity, taken_back in ((1, 1), (20, 21), (50, 71), (2_500, 2_571)):
        assert reserve(api, item, quantity).status_code == 201
        assert (expired(db), available(db, item)) == (taken_back, 0)


def test_clients_of_other_items_keep_their_rate_while_many_holds_are_expired(
    api: httpx.Client, served: Served, db: Db
) -> None:
    greedy = an_item_with_overdue_holds(db, OVERDUE)
    others = [an_item(db, quantity=1_000_000) for _ in range(8)]
    wanted = cycle(
        request("POST", "/reservations", {"item_id": greedy.id, "quantity": n}) for n in (OVERDUE + 1, 50, 500, 3_000)
    )

    with Callers(served.port, [reserving(item.id) for item in others], rest_seconds=0.05) as free:
        ratios = Ratios(free)
        for _ in range(3):
            before = free.during(1.0)
            with Callers(served.port, [wanted], rest_seconds=0.02):
                ratios.compare(before, free.during(1.0))

    assert {answer.status for answer in free.answers} == {201}
    assert expired(db) > 0
    assert ratios.median >= 0.8


@contextmanager
def locked_holds(db: Db) -> Iterator[None]:
    """Lock all holds, as somebody does who changes them and does not commit."""
    with db.begin() as session:
        session.execute(select(reservations.c.id).with_for_update())
        yield


def test_units_of_overdue_holds_that_are_locked_are_waited_for(api: httpx.Client, db: Db) -> None:
    item = an_item_with_overdue_holds(db, 100)

    with ThreadPoolExecutor(2) as threads:
        with locked_holds(db):
            waiting = threads.submit(reserve, api, item, 30)
            # Both writers have had time to decide it, if they could.
            assert [reserve(api, an_item(db), 1).status_code for _ in range(10)] == [201] * 10
            assert not waiting.done()
        assert waiting.result().status_code == 201

        with locked_holds(db):
            busy = reserve(api, item, 30)

    assert (busy.status_code, busy.json()["type"]) == (503, "/problems/busy")
    wait_until("the next request is served", lambda: reserve(api, item, 30).status_code == 201)
    assert expired(db) == 60
