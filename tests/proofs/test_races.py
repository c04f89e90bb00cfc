"""Many at once, for the same thing: over real HTTP, or over real connections to the database."""

import json
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import accumulate
from random import Random
from threading import Event
from uuid import UUID

import pytest
from sqlalchemy import select, text

from domain import reservations
from domain.idempotency.stored_answers import Answered
from domain.items.table import Item
from domain.reservations import Change
from domain.reservations.lifecycle import Status
from domain.reservations.table import reservations as table
from tests.proofs.checker import check, statuses
from tests.proofs.cluster import Api, House
from tests.proofs.conftest import Open
from tests.proofs.load import Answer, Door, at_once
from tests.proofs.waiting import wait_until
from tests.support.builders import a_request, reserve

CONNECTIONS = 64


def test_64_connections_sell_100_units_exactly(open_house: Open, seed: int) -> None:
    """Quantities from 1 to 9, and each third request a repeat of one that may be in flight."""
    house = open_house()
    api = house.api()
    item = house.an_item(100)
    house.partners.ready()
    api.ready()

    asked, answers = _all_want_some(api, item, Random(seed))
    house.drain()

    assert {answer.status for answer in answers} == {201, 409}
    sold = _sold(house)
    assert sum(sold) == 100
    assert house.available(item) == 0
    _check_that_each_key_acted_once(asked, answers, len(sold))
    _check_that_the_refused_did_not_fit(answers, sold)
    check(house)
    print(f"{len(asked)} requests, {len(sold)} reservations, {sum(answer.replayed for answer in answers)} repeats")


def _all_want_some(api: Api, item: Item, dice: Random) -> tuple[Sequence[tuple[str, int]], Sequence[Answer]]:
    """Send the requests from all connections at once. Return the key and quantity of each, and its answer."""
    wanted = {f"key-{number}": dice.choice([1, 1, 2, 3, 5, 9]) for number in range(CONNECTIONS * 4)}
    keys = [*wanted, *dice.choices(list(wanted), k=CONNECTIONS * 2)]
    dice.shuffle(keys)
    share = len(keys) // CONNECTIONS

    def customer(number: int) -> list[Answer]:
        with Door(api.port) as door:
            return [
                door.post("/reservations", {"item_id": item.id, "quantity": wanted[key]}, key=key)
                for key in keys[number * share : (number + 1) * share]
            ]

    answers = [answer for each in at_once(CONNECTIONS, customer) for answer in each]
    return [(key, wanted[key]) for key in keys], answers


def _sold(house: House) -> list[int]:
    """Return what was reserved, in the order in which it was decided: ids sort by the time of their making."""
    with house.db.begin() as session:
        return list(session.execute(select(table.c.quantity).order_by(table.c.id)).scalars())


def _check_that_each_key_acted_once(
    asked: Sequence[tuple[str, int]], answers: Sequence[Answer], reservations_made: int
) -> None:
    by_key = defaultdict(list)
    for (key, _), answer in zip(asked, answers, strict=True):
        if answer.status == 201:
            by_key[key].append(answer)
    assert len(by_key) == reservations_made
    for same in by_key.values():
        assert len({answer.text for answer in same}) == 1
        assert sum(not answer.replayed for answer in same) == 1


def _check_that_the_refused_did_not_fit(answers: Sequence[Answer], sold: Sequence[int]) -> None:
    """Each was refused on a number that was true at some moment, and less than what was asked for."""
    left = {100 - taken for taken in accumulate(sold, initial=0)}
    for answer in answers:
        if answer.status == 409:
            assert answer.body["available_quantity"] in left
            assert answer.body["asked"] > answer.body["available_quantity"]


def test_1000_pairs_that_lock_in_opposite_orders_never_deadlock(open_house: Open, seed: int) -> None:
    """Half of them reserve one then the other, half the other then the one; each set is then cancelled, or expires."""
    house = open_house()
    one, other = house.an_item(3_000), house.an_item(3_000)
    dice = [Random(seed + number) for number in range(20)]

    def pairs(number: int) -> None:
        for _ in range(50):
            first, second = (one, other) if dice[number].random() < 0.5 else (other, one)
            lasting = timedelta(seconds=dice[number].choice([0, 900]))
            made = _reserve_pair(house, [first, second], lasting)
            dice[number].shuffle(made)
            _cancel(house, made)

    def sweeps(number: int) -> None:
        for _ in range(100):
            with house.db.begin() as session:
                reservations.expire(session, dice[number].randint(1, 10))

    at_once(20 + 2, lambda number: pairs(number) if number < 20 else sweeps(number - 20))
    sweeps(0)

    assert _deadlocks(house) == 0
    assert (house.available(one), house.available(other)) == (3_000, 3_000)
    assert len(_sold(house)) == 2_000
    house.partners.ready()
    house.drain("--limit", "100")
    check(house)


def _reserve_pair(house: House, pair: Sequence[Item], lasting: timedelta) -> list[UUID]:
    outcomes = reserve(house.db, *(a_request(item, hold_for=lasting) for item in pair))
    assert all(isinstance(outcome, Answered) for outcome in outcomes)
    return [UUID(json.loads(outcome.text)["id"]) for outcome in outcomes if isinstance(outcome, Answered)]


def _cancel(house: House, ids: Sequence[UUID]) -> None:
    """Cancel both in one set; what has lapsed meanwhile expires instead."""
    with house.db.begin() as session:
        held = reservations.lock(session, ids)
        held = sorted(held, key=lambda one: ids.index(one.id))
        reservations.transition(session, [Change(of=one, to=Status.CANCELLED) for one in held])


def _deadlocks(house: House) -> int:
    with house.db.begin() as session:
        counted = text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        deadlocks: int = session.execute(counted).scalar_one()
        return deadlocks


def test_the_same_key_at_once_over_two_apis_acts_once(open_house: Open) -> None:
    """32 connections, half of them to each API, ask for the same with the same key, 25 times."""
    house = open_house()
    apis = [house.api(), house.api()]
    items = [house.an_item(50), house.an_item(50)]
    for api in apis:
        api.ready()

    same = [_ask_with_one_key(apis, [{"item_id": items[0].id, "quantity": 2}], f"same-{turn}") for turn in range(25)]
    quantities = [{"item_id": items[1].id, "quantity": quantity} for quantity in (1, 2)]
    differing = [_ask_with_one_key(apis, quantities, f"differing-{turn}") for turn in range(10)]

    for answers in same:
        assert {answer.status for answer in answers} == {201}
        assert len({answer.text for answer in answers}) == 1
        assert sum(not answer.replayed for answer in answers) == 1
    _check_that_one_payload_won(differing)
    assert house.available(items[0]) == 0
    house.partners.ready()
    house.drain()
    check(house)


def test_a_key_that_races_over_two_items_and_two_apis_acts_once(open_house: Open) -> None:
    """No item lock is shared here: the key itself is what they race for."""
    house = open_house()
    apis = [house.api(), house.api()]
    items = [house.an_item(100), house.an_item(100)]
    for api in apis:
        api.ready()

    wanted = [{"item_id": item.id, "quantity": 1} for item in items]
    racing = [_ask_with_one_key(apis, wanted, f"racing-{turn}") for turn in range(40)]

    _check_that_one_payload_won(racing)
    assert sum(map(house.available, items)) == 200 - 40
    house.partners.ready()
    house.drain()
    check(house)


def _ask_with_one_key(apis: Sequence[Api], wanted: Sequence[dict[str, int]], key: str) -> Sequence[Answer]:
    def ask(number: int) -> Answer:
        with Door(apis[number % 2].port) as door:
            # The payloads go round by pairs, so that each is sent to both APIs.
            return door.post("/reservations", wanted[number // 2 % len(wanted)], key=key)

    return at_once(32, ask)


def _check_that_one_payload_won(races: Sequence[Sequence[Answer]]) -> None:
    for answers in races:
        made = [answer for answer in answers if answer.status == 201]
        assert len({answer.text for answer in made}) == 1
        assert sum(not answer.replayed for answer in made) == 1
        refused = [answer for answer in answers if answer.status != 201]
        assert {(answer.status, answer.body["type"]) for answer in refused} == {(409, KEY_REUSED)}


KEY_REUSED = "urn:holdfast:problem:key-reused"


@pytest.mark.parametrize("naming", ["expected_version", "If-Match"])
def test_of_confirm_and_cancel_at_once_exactly_one_wins(open_house: Open, naming: str) -> None:
    """Both name the version that they have seen. 100 holds, a connection for each of the two."""
    house = open_house()
    apis = [house.api(), house.api()]
    item = house.an_item(100)
    for api in apis:
        api.ready()
    made = house.hold(item, 100)
    body, headers = ({"expected_version": 1}, {}) if naming == "expected_version" else ({}, {"If_Match": '"1"'})

    def change(number: int, to: str) -> list[Answer]:
        # Each two that race for the same holds go by different APIs.
        with Door(apis[(number // 2 + number) % 2].port) as door:
            return [door.post(f"/reservations/{one}/{to}", body, **headers) for one in made[number // 2 :: 8]]

    orders = ["confirm", "cancel"] * 8
    answers = at_once(16, lambda number: change(number, orders[number]))

    assert {answer.status for each in answers for answer in each} == {200, 412 if headers else 409}
    confirmed, cancelled = (_won(answers, orders, to) for to in ("confirm", "cancel"))
    print(f"{confirmed} confirmed, {cancelled} cancelled")
    assert confirmed + cancelled == 100
    assert statuses(house, made) == Counter(CONFIRMED=confirmed, CANCELLED=cancelled)
    assert house.available(item) == cancelled
    house.partners.ready()
    house.drain()
    check(house)


def test_of_confirm_and_expire_at_once_exactly_one_wins(open_house: Open, seed: int) -> None:
    """100 holds lapse one after the other, each confirmed at about that moment, while two sweepers never rest."""
    house = open_house()
    api = house.api()
    item = house.an_item(100)
    dice = Random(seed)
    swept = Event()
    api.ready()
    began = time.time()
    lasting = [2 + number * 0.02 for number in range(100)]
    made = [house.hold(item, lasting=timedelta(seconds=began + seconds - time.time()))[0] for seconds in lasting]
    moments = [began + seconds + dice.uniform(-0.03, 0.01) for seconds in lasting]

    def confirm(number: int) -> list[tuple[UUID, Answer]]:
        with Door(api.port) as door:
            mine = list(zip(made, moments, strict=True))[number::8]
            return [(one, _confirm_at(moment, door, one)) for one, moment in mine]

    def sweep(_: int) -> list[tuple[UUID, Answer]]:
        while not swept.is_set():
            with house.db.begin() as session:
                reservations.expire(session, 10)
        return []

    with ThreadPoolExecutor(2) as sweepers:
        running = [sweepers.submit(sweep, number) for number in range(2)]
        answers = [answer for each in at_once(8, confirm) for answer in each]
        wait_until("all has lapsed or is confirmed", lambda: not statuses(house, made)["PENDING"])
        swept.set()
        assert [sweeper.result() for sweeper in running] == [[], []]

    assert {answer.status for _, answer in answers} == {200, 409}
    confirmed = {one for one, answer in answers if answer.status == 200}
    print(f"{len(confirmed)} confirmed, {100 - len(confirmed)} expired")
    assert statuses(house, list(confirmed)) == {"CONFIRMED": len(confirmed)}
    assert statuses(house, made) == {"CONFIRMED": len(confirmed), "EXPIRED": 100 - len(confirmed)}
    assert house.available(item) == 100 - len(confirmed)
    house.partners.ready()
    house.drain()
    check(house)


def _confirm_at(moment: float, door: Door, reservation_id: UUID) -> Answer:
    """Confirm at that moment by this machine's clock, which PostgreSQL goes by as well."""
    time.sleep(max(0.0, moment - time.time()))
    return door.post(f"/reservations/{reservation_id}/confirm")


def _won(answers: Sequence[Sequence[Answer]], orders: Sequence[str], to: str) -> int:
    return sum(
        answer.status == 200 for each, order in zip(answers, orders, strict=True) for answer in each if order == to
    )
