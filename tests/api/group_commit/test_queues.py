"""The queues of the writers: in order, with limits, and nobody waits in them without end."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from api.group_commit.queues import (
    LARGEST_SHARE,
    MOST_FOR_AN_ITEM,
    MOST_FOR_ITEMS,
    SHARED_SECONDS,
    Member,
    Queue,
    WaitingQueue,
)
from domain.access import ANONYMOUS
from domain.reservations import Reserve
from domain.reservations.capacity import Claim

#: More places than these tests need.
MOST = 1_000


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """What futures belong to. Nobody awaits them here."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


class Members:
    """Makes members."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def __call__(
        self,
        count: int,
        *,
        item: int = 1,
        deadline: float = 100.0,
        is_background: bool = False,
        client_id: str = ANONYMOUS.client_id,
    ) -> list[Member]:
        lines = (Claim(item, 1),)
        request = Reserve(lines=lines, hold_for=timedelta(minutes=1), render=str, client_id=client_id)
        return [
            Member(request, self._loop.create_future(), deadline, is_background, waits_for=(item,))
            for _ in range(count)
        ]


@pytest.fixture
def members(loop: asyncio.AbstractEventLoop) -> Members:
    return Members(loop)


def test_members_are_taken_in_order_of_arrival_and_no_more_than_wanted(members: Members) -> None:
    queue = Queue()
    put = members(5)
    for member in put:
        queue.put(member, most=MOST)

    assert [queue.take(3), queue.take(3)] == [put[:3], put[3:]]


def test_members_in_the_background_fill_what_others_leave(members: Members) -> None:
    queue = Queue()
    behind, urgent = members(3, is_background=True), members(2)
    for member in [*behind, *urgent]:
        queue.put(member, most=MOST)

    assert queue.take(4) == [*urgent, *behind[:2]]
    assert queue.take(4) == behind[2:]


@pytest.mark.parametrize(
    ("greedy", "modest"),
    [({"client_id": "greedy"}, {"client_id": "modest"}), ({"item": 1}, {"item": 2})],
    ids=["clients", "items of clients without a name"],
)
def test_participants_take_turns(members: Members, greedy: dict[str, Any], modest: dict[str, Any]) -> None:
    queue = Queue()
    many, few = members(100, **greedy), members(2, **modest)
    for member in [*many, *few]:
        queue.put(member, most=MOST)

    assert queue.take(5) == [many[0], few[0], many[1], few[1], many[2]]


def test_while_others_want_something_nobody_has_more_than_a_share_of_a_set(
    members: Members, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = Queue()
    many, (one,) = members(4 * LARGEST_SHARE, client_id="greedy"), members(1, client_id="modest")
    for member in [*many, one]:
        queue.put(member, most=MOST)

    assert queue.take(MOST) == [many[0], one, *many[1:LARGEST_SHARE]]
    # The others may be back within a moment.
    assert queue.take(MOST) == many[LARGEST_SHARE : 2 * LARGEST_SHARE]
    later = time.monotonic() + SHARED_SECONDS
    monkeypatch.setattr("api.group_commit.queues.time.monotonic", lambda: later)
    assert queue.take(MOST) == many[2 * LARGEST_SHARE :]


def test_in_a_full_queue_the_newest_member_of_the_greediest_client_has_no_place(members: Members) -> None:
    queue = Queue()
    many, few = members(4, client_id="greedy"), members(3, client_id="modest")
    for member in many:
        assert queue.put(member, most=4) is None

    assert [queue.put(member, most=4) for member in few] == [many[3], many[2], few[2]]
    assert queue.put(many[3], most=4) == many[3]
    assert queue.take(10) == [many[0], few[0], many[1], few[1]]


def test_who_takes_from_an_empty_queue_waits_for_a_member(members: Members) -> None:
    queue = Queue()
    (member,) = members(1)

    with ThreadPoolExecutor(1) as threads:
        taken = threads.submit(queue.take, 10)
        queue.put(member, most=MOST)

        assert taken.result(10) == [member]


def test_a_closed_queue_returns_what_it_has_and_then_nothing(members: Members) -> None:
    queue = Queue()
    (member,) = members(1)
    queue.put(member, most=MOST)
    queue.close()

    assert [queue.take(10), queue.take(10)] == [[member], []]


def test_closing_ends_the_waiting_of_who_takes() -> None:
    queue = Queue()

    with ThreadPoolExecutor(1) as threads:
        taken = threads.submit(queue.take, 10)
        queue.close()

        assert taken.result(10) == []


def test_only_members_whose_deadline_has_passed_are_overdue(members: Members) -> None:
    queue = Queue()
    (early,), (late,) = members(1, deadline=1), members(1, deadline=2)
    (early_behind,) = members(1, deadline=1, is_background=True)
    queue.put(early, most=MOST)
    queue.put(late, most=MOST)
    queue.put(early_behind, most=MOST)

    assert queue.take_overdue(0.5) == []
    assert queue.take_overdue(1.0) == [early, early_behind]
    assert queue.take(10) == [late]


def test_one_item_takes_no_more_than_its_share_of_the_places(members: Members) -> None:
    queue = WaitingQueue()
    for_one, for_another = members(MOST_FOR_AN_ITEM + 2, item=1), members(1, item=2)

    assert queue.admit([*for_one, *for_another]) == for_one[-2:]
    assert queue.admit(members(1, item=1)) != []
    assert len(queue) == MOST_FOR_AN_ITEM + 1


def test_all_items_together_have_a_limit(members: Members) -> None:
    queue = WaitingQueue()
    for item in range(MOST_FOR_ITEMS // 64):
        assert queue.admit(members(64, item=item)) == []

    assert len(queue.admit(members(1, item=-1))) == 1


def test_each_item_gets_as_many_places_in_a_set_as_any_other(members: Members) -> None:
    """The clients of one item are many, and have come first."""
    queue = WaitingQueue()
    many, few = members(100, item=1), members(3, item=2)
    queue.admit([*many, *few])

    taken = queue.take_from_each_item(10)

    assert Counter(member.request.items for member in taken) == {(1,): 7, (2,): 3}
    assert [member for member in taken if member.request.items == (1,)] == many[:7]
    assert queue.take_from_each_item(1_000) == many[7:]


def test_members_that_could_not_be_decided_are_the_first_again(members: Members) -> None:
    queue = WaitingQueue()
    put = members(4)
    queue.admit(put)
    taken = queue.take_from_each_item(2)

    queue.put_back(taken)

    assert queue.take(10) == put


def test_members_in_the_background_stay_there_when_they_wait_for_an_item(members: Members) -> None:
    queue = WaitingQueue()
    behind, urgent = members(2, is_background=True), members(1, item=2)

    assert queue.admit([*behind, *urgent]) == []
    assert queue.take_from_each_item(2) == [*urgent, behind[0]]
    queue.put_back([behind[0]])
    assert queue.take(10) == behind


def test_a_basket_takes_a_place_of_the_item_that_it_waits_for_only(members: Members) -> None:
    queue = WaitingQueue()
    baskets, for_another = members(MOST_FOR_AN_ITEM, item=1), members(1, item=2)
    lines = (Claim(2, 1), Claim(1, 1))
    for basket in baskets:
        basket.request = Reserve(lines=lines, hold_for=timedelta(minutes=1), render=str)

    assert queue.admit([*baskets, *for_another]) == []
    assert len(queue.admit(members(1, item=1))) == 1


def test_a_basket_that_waits_for_several_items_takes_a_place_of_the_most_crowded_one(members: Members) -> None:
    queue = WaitingQueue()
    assert queue.admit(members(10, item=1)) == []
    baskets = members(MOST_FOR_AN_ITEM - 10)
    for basket in baskets:
        basket.waits_for = (2, 1)

    assert queue.admit(baskets) == []
    assert [queue.admit(members(1, item=item)) == [] for item in (1, 2)] == [False, True]
