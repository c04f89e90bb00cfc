"""Availability over HTTP: what is free can be reserved at once, and nothing more, whoever has changed what before."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from random import Random
from typing import Any

import httpx
import pytest
from redis import Redis
from sqlalchemy import text

from domain.runtime.database import now
from domain.runtime.settings import Settings
from tests.api.calendars.test_calendars import a_calendar, reserve, times
from tests.support.api_process import Served, serving
from tests.support.builders import FRIDAY, Db
from tests.support.waiting import wait_until, wait_until_blocked

#: The prefix of an entry: the question, and the mark of what its answer follows from.
PREFIX_BYTES = 64

Steps = list[tuple[float, float, int]]


def window(start: float, end: float) -> dict[str, str]:
    return dict(zip(("from", "to"), times(start, end).values(), strict=True))


def look(api: httpx.Client, start: float = 0, end: float = 24, item_id: int = 1, **asked: Any) -> dict[str, Any]:
    answer = api.get(f"/items/by-id/{item_id}/availability", params={**window(start, end), **asked})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def steps(shown: dict[str, Any]) -> Steps:
    """Return the steps, with hours instead of times."""
    return [(hour(step["start"]), hour(step["end"]), step["available_quantity"]) for step in shown["steps"]]


def hour(written: str) -> float:
    return (datetime.fromisoformat(written) - FRIDAY) / timedelta(hours=1)


def test_free_units_are_shown_step_by_step(api: httpx.Client) -> None:
    a_calendar(api, capacity=3, buffer_after_seconds=3600, opening_hours={"fri": ["08:00-22:00"]})
    reserve(api, 10, 12, quantity=2)

    shown = look(api)

    # It opens at 8 in Berlin, which is 6 in UTC. What ends before 10 needs the room for an hour after that as well.
    assert steps(shown) == [(0, 6, 0), (6, 9, 3), (9, 13, 1), (13, 20, 3), (20, 24, 0)]
    assert (shown["item_id"], shown["sku"], shown["starts"]) == (1, "ROOM-1", None)


def test_free_starts_are_shown_if_they_are_asked_for(api: httpx.Client) -> None:
    a_calendar(api, capacity=2)
    reserve(api, 2, 4)

    for quantity, expected in ((None, [0, 1, 2, 3, 4]), (1, [0, 1, 2, 3, 4]), (2, [0, 4]), (3, [])):
        asked = {} if quantity is None else {"quantity": quantity}
        shown = look(api, 0, 6, duration_seconds=7200, step_seconds=3600, **asked)
        assert [hour(start) for start in shown["starts"]] == expected


def test_several_calendars_are_shown_in_the_order_in_which_they_are_named(api: httpx.Client) -> None:
    for number in (1, 2, 3):
        a_calendar(api, sku=f"ROOM-{number}", capacity=number)
    reserve(api, 8, 9, sku="ROOM-2")
    asked = {"items": [{"sku": "ROOM-3"}, {"item_id": 2}, {"sku": "ROOM-1"}], **window(8, 10)}
    starts = {"quantity": 2, "duration_seconds": 3600, "step_seconds": 3600}

    shown = api.post("/availability", json=asked | starts).json()["availability"]

    assert [one["sku"] for one in shown] == ["ROOM-3", "ROOM-2", "ROOM-1"]
    assert [steps(one) for one in shown] == [[(8, 10, 3)], [(8, 9, 1), (9, 10, 2)], [(8, 10, 1)]]
    assert [[hour(start) for start in one["starts"]] for one in shown] == [[8, 9], [9], []]


@pytest.mark.parametrize(
    ("asked", "at_fault"),
    [
        *(({name: None}, name) for name in ("from", "to")),
        *(({name: written}, name) for name in ("from", "to") for written in (
            "2030-05-03T10:00:00", "2030-05-03", "Friday", "", "1969-12-31T23:59:59Z", "2200-01-01T00:00:01Z",
        )),
        ({"to": window(0, 0)["from"]}, "to"),
        ({"to": window(-1, 0)["from"]}, "to"),
        ({"to": window(0, 24 * 93 + 1)["to"]}, "to"),
        ({"quantity": 2}, "quantity"),
        ({"step_seconds": 900}, "duration_seconds"),
        ({"duration_seconds": 900}, "step_seconds"),
        *(({"duration_seconds": 900, "step_seconds": wrong}, "step_seconds") for wrong in (0, -900, 59, 2**63, "x")),
        *(({"duration_seconds": wrong, "step_seconds": 900}, "duration_seconds") for wrong in (0, -1, 2**63, "1.5")),
        *(
            ({"duration_seconds": 900, "step_seconds": 900, "quantity": wrong}, "quantity")
            for wrong in (0, -1, 2**31, "many")
        ),
        ({"duration_seconds": 60, "step_seconds": 60, "to": window(0, 24 * 7)["to"]}, "step_seconds"),
        ({"colour": "red"}, "colour"),
        ({"start": "2030-05-03T10:00:00Z"}, "start"),
    ],
)  # fmt: skip
def test_what_can_not_be_asked_is_refused_by_its_name(
    api: httpx.Client, asked: dict[str, object], at_fault: str
) -> None:
    a_calendar(api)
    params: dict[str, Any] = {name: value for name, value in (window(0, 24) | asked).items() if value is not None}

    answer = api.get("/items/by-id/1/availability", params=params)

    assert (answer.status_code, answer.json()["field"]) == (400, at_fault), answer.text
    assert "start" not in answer.json()["reason"].split(), "nobody has sent a start"


@pytest.mark.parametrize(
    ("asked", "at_fault"),
    [
        ({"items": []}, "items"),
        ({"items": [{"sku": "ROOM-1"}] * 101}, "items"),
        ({"items": [{}]}, "items.item_id"),
        ({"items": [{"sku": "ROOM-1", "item_id": 1}]}, "items.item_id"),
        ({"items": ["ROOM-1"]}, "items"),
        ({"items": [{"sku": "ROOM-1"}] * 10, **window(0, 24 * 75)}, "to"),
        ({"items": [{"sku": "ROOM-1"}] * 8, "duration_seconds": 60, "step_seconds": 60}, "step_seconds"),
        ({"from": "2030-05-03T10:00:00"}, "from"),
        ({"to": window(-1, 0)["from"]}, "to"),
        ({"step_seconds": "900"}, "step_seconds"),
        ({"quantity": 1}, "quantity"),
    ],
)
def test_what_can_not_be_asked_of_several_is_refused_by_its_name(
    api: httpx.Client, asked: dict[str, object], at_fault: str
) -> None:
    a_calendar(api)

    answer = api.post("/availability", json={"items": [{"sku": "ROOM-1"}], **window(0, 24)} | asked)

    assert (answer.status_code, answer.json()["field"].split("[")[0]) == (400, at_fault), answer.text


def test_the_most_that_can_be_asked_is_answered(api: httpx.Client) -> None:
    a_calendar(api)

    quarter = look(api, 0, 24 * 93)
    hundred = api.post("/availability", json={"items": [{"sku": "ROOM-1"}] * 100, **window(0, 24 * 7)})

    assert steps(quarter) == [(0, 24 * 93, 1)]
    assert [steps(one) for one in hundred.json()["availability"]] == [[(0, 24 * 7, 1)]] * 100


def test_what_is_unknown_is_named_and_stock_has_no_free_time(api: httpx.Client) -> None:
    a_calendar(api)
    api.post("/items", json={"sku": "MUG", "name": "Mug", "available_quantity": 5}).raise_for_status()

    unknown = api.get("/items/by-id/99/availability", params=window(0, 1))
    among = api.post("/availability", json={"items": [{"sku": "ROOM-1"}, {"sku": "ROOM-9"}], **window(0, 1)})
    stock = api.get("/items/by-id/2/availability", params=window(0, 1))

    assert [(one.status_code, one.json()["type"]) for one in (unknown, among)] == [(404, "/problems/unknown-item")] * 2
    assert (unknown.json()["item"], among.json()["item"]) == (99, "ROOM-9")
    assert (stock.status_code, stock.json()["field"]) == (400, "item_id")


@pytest.fixture(scope="module")
def others(settings: Settings) -> Iterator[httpx.Client]:
    """Another process of the API, with the same database and the same Redis."""
    with serving() as served:
        yield served.client


@pytest.fixture
def kept(settings: Settings) -> Iterator[Callable[[], dict[bytes, bytes]]]:
    """Return what the cache keeps."""
    with Redis.from_url(settings.redis_url) as redis:
        redis.delete(*(redis.keys("holdfast:availability:*") or ["none"]))
        yield lambda: {key: redis.get(key) for key in redis.keys("holdfast:availability:*")}


Kept = Callable[[], dict[bytes, bytes]]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_what_is_shown_free_can_be_reserved_and_what_is_not_can_not(
    api: httpx.Client, others: httpx.Client, db: Db, seed: int
) -> None:
    dice = Random(seed)
    a_calendar(
        api,
        capacity=3,
        buffer_before_seconds=dice.choice([0, 1800]),
        buffer_after_seconds=dice.choice([0, 3600]),
        opening_hours=dice.choice([None, {"fri": ["06:00-24:00"], "sat": ["00:00-02:00"]}]),
    )
    made: list[str] = []
    seen = set()
    for _ in range(60):
        change(dice, dice.choice([api, others]), made)
        start = dice.randint(4, 40) / 2
        end, quantity = start + dice.randint(1, 8) / 2, dice.randint(1, 3)
        client = dice.choice([api, others])
        shown = steps(look(client, 0, 24))
        free = min(units for begins, ends, units in shown if begins < end and start < ends)

        tried = reserve(dice.choice([api, others]), start, end, quantity=quantity)

        assert tried.status_code == (201 if quantity <= free else 409), (start, end, quantity, shown, tried.text)
        seen.add(tried.status_code)
        if tried.status_code == 201 and dice.random() < 0.7:
            made.append(tried.json()["id"])
        elif tried.status_code == 201:
            assert api.post(f"/reservations/{tried.json()['id']}/cancel").status_code == 200
    assert seen == {201, 409}


def change(dice: Random, api: httpx.Client, made: list[str]) -> None:
    """Confirm, cancel or move one of the reservations that were made, or block some time."""
    if not made or dice.random() < 0.2:
        start = dice.randint(8, 30) / 2
        api.post("/items/by-id/1/blocks", json={"quantity": 1, **times(start, start + 1)})
        return
    one = f"/reservations/{dice.choice(made)}"
    start = dice.randint(8, 30) / 2
    match dice.randrange(3):
        case 0:
            api.post(f"{one}/confirm")
        case 1:
            api.post(f"{one}/cancel")
        case 2:
            api.put(one, json={"quantity": dice.randint(1, 3), **times(start, start + 2)})


@pytest.mark.slow
def test_each_change_is_seen_by_another_process_at_once(
    api: httpx.Client, others: httpx.Client, db: Db, kept: Kept
) -> None:
    def seen() -> Steps:
        """Look by both processes, one after the other and twice: so each has it from the cache."""
        first, *more = (steps(look(client)) for client in (api, others) * 2)
        assert all(one == first for one in more)
        assert len(kept()) == 1
        return first

    a_calendar(api, capacity=2)
    assert seen() == [(0, 24, 2)]

    made = reserve(api, 8, 10).json()["id"]
    assert seen() == [(0, 8, 2), (8, 10, 1), (10, 24, 2)]

    assert others.put(f"/reservations/{made}", json=times(9, 12)).status_code == 200
    assert seen() == [(0, 9, 2), (9, 12, 1), (12, 24, 2)]

    block = others.post("/items/by-id/1/blocks", json=times(20, 24)).json()["id"]
    assert seen() == [(0, 9, 2), (9, 12, 1), (12, 20, 2), (20, 24, 0)]

    assert api.post(f"/reservations/{made}/cancel").status_code == 200
    assert seen() == [(0, 20, 2), (20, 24, 0)]

    assert others.post(f"/reservations/{block}/cancel").status_code == 200
    assert seen() == [(0, 24, 2)]

    assert api.patch("/items/ROOM-1", json={"capacity": 5}).status_code == 200
    assert seen() == [(0, 24, 5)]

    assert others.patch("/items/by-id/1", json={"opening_hours": {"fri": ["08:00-12:00"]}}).status_code == 200
    assert seen() == [(0, 6, 0), (6, 10, 5), (10, 24, 0)]


def test_the_time_of_a_hold_is_free_in_the_moment_in_which_it_lapses(api: httpx.Client, db: Db, kept: Kept) -> None:
    a_calendar(api)
    lapses_at = datetime.fromisoformat(reserve(api, 8, 10, ttl_seconds=1).json()["expires_at"])

    def has_lapsed() -> bool:
        with db() as session:
            before = now(session)
        shown = steps(look(api))
        assert shown == [(0, 8, 1), (8, 10, 0), (10, 24, 1)] or before > lapses_at - timedelta(seconds=1)
        if before >= lapses_at:
            assert shown == [(0, 24, 1)]
        return before >= lapses_at

    wait_until("the hold lapses", has_lapsed)

    assert len(kept()) == 1, "it was in the cache before, and would be for seconds"


def test_an_answer_is_kept_while_nothing_changes(api: httpx.Client, kept: Kept, settings: Settings) -> None:
    a_calendar(api)
    look(api)
    (key,) = kept()
    with Redis.from_url(settings.redis_url) as redis:
        assert 0 < redis.ttl(key) <= 5
        marked = kept()[key][:PREFIX_BYTES] + json.dumps({"steps": []}).encode()
        redis.set(key, marked, ex=60)

        assert look(api) == {"steps": []}, "it does not come from the cache"
        assert look(api, 0, 23)["steps"], "another question has the same answer"

        reserve(api, 8, 10)
        assert steps(look(api)) == [(0, 8, 1), (8, 10, 0), (10, 24, 1)]


def test_an_answer_that_is_stored_late_is_not_used(api: httpx.Client, kept: Kept, settings: Settings) -> None:
    """A reader reads, a writer commits, other readers read, and only then the first one stores what it has read."""
    a_calendar(api)
    look(api)
    ((key, old),) = kept().items()
    reserve(api, 8, 10)
    expected = [(0, 8, 1), (8, 10, 0), (10, 24, 1)]
    assert steps(look(api)) == expected

    with Redis.from_url(settings.redis_url) as redis:
        redis.set(key, old, ex=60)

    assert steps(look(api)) == expected


def test_who_looks_at_availability_delays_nobody_else(api: httpx.Client, db: Db) -> None:
    a_calendar(api)
    api.post("/items", json={"sku": "MUG", "name": "Mug", "available_quantity": 5}).raise_for_status()
    with ThreadPoolExecutor(8) as threads:
        with hanging(db):
            looking = [
                threads.submit(
                    api.get, "/items/by-id/1/availability", params=window(0, 1), headers={"X-Client-Id": f"{number}"}
                )
                for number in range(8)
            ]
            wait_until_blocked(db, 2)

            assert api.get("/items/MUG").status_code == 200
            assert api.get("/reservations").status_code == 200
            assert api.post("/reservations", json={"sku": "MUG", "quantity": 1}).status_code == 201
            assert not any(one.done() for one in looking), "it did not hang, so this proves nothing"
        answers = [one.result() for one in looking]

    assert {one.status_code for one in answers} <= {200, 503}


@contextmanager
def hanging(db: Db) -> Iterator[None]:
    """Let whoever reads what is taken of calendars wait until the block ends."""
    with db.begin() as session:
        session.execute(text("LOCK TABLE calendar_occupancies IN ACCESS EXCLUSIVE MODE"))
        yield


def test_availability_needs_no_key_where_changes_need_one(settings: Settings, db: Db) -> None:
    with serving(REQUIRE_IDEMPOTENCY_KEYS="true") as strict:
        a_calendar_with_a_key(strict)

        shown = strict.client.post("/availability", json={"items": [{"sku": "ROOM-1"}], **window(0, 1)})

    assert shown.status_code == 200, shown.text


def a_calendar_with_a_key(served: Served) -> None:
    served.client.headers["Idempotency-Key"] = "a-key"
    a_calendar(served.client)
    del served.client.headers["Idempotency-Key"]
