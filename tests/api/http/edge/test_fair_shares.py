"""Fair shares: beside somebody who asks for little, who asks for much has few requests in progress."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from api.http.edge import fair_shares
from api.http.edge.fair_shares import COUNTED_SECONDS, MOST_IN_PROGRESS, Place, Shares
from domain.runtime.errors import Busy

Entered = Place | asyncio.Future[Place]


def run(test: Callable[[Shares], Awaitable[None]]) -> None:
    async def within_ten_seconds() -> None:
        async with asyncio.timeout(10):
            await test(Shares())

    asyncio.run(within_ten_seconds())


def enter(shares: Shares, name: str, times: int = 1) -> list[Entered]:
    return [shares.enter(name) for _ in range(times)]


def waiting(entered: list[Entered]) -> int:
    return sum(isinstance(one, asyncio.Future) and not one.done() for one in entered)


def test_who_is_alone_never_waits() -> None:
    async def test(shares: Shares) -> None:
        assert waiting(enter(shares, "flood", 200)) == 0

    run(test)


def test_beside_somebody_who_asks_for_little_a_flood_has_few_requests_in_progress() -> None:
    async def test(shares: Shares) -> None:
        first = enter(shares, "flood", 200)
        assert waiting(enter(shares, "ann")) == 0
        for place in first:
            assert isinstance(place, Place)
            shares.leave(place)

        assert waiting(enter(shares, "flood", 200)) == 200 - MOST_IN_PROGRESS
        assert waiting(enter(shares, "ann")) == 0

    run(test)


def test_those_who_all_ask_for_much_do_not_wait_for_each_other() -> None:
    async def test(shares: Shares) -> None:
        entered = enter(shares, "one", 50) + enter(shares, "other", 50)
        # Until each of them had asked for much, either could be one who asks for little.
        for place in entered:
            if isinstance(place, Place):
                shares.leave(place)
        await asyncio.sleep(fair_shares.REMEMBERED_SECONDS + 2 * COUNTED_SECONDS)

        assert waiting(entered) == 0

    run(test)


def test_the_next_one_gets_the_place_of_a_request_that_has_ended() -> None:
    async def test(shares: Shares) -> None:
        enter(shares, "flood", MOST_IN_PROGRESS + 1)
        enter(shares, "ann")
        entered = enter(shares, "flood", 1)
        assert waiting(entered) == 1

    run(test)

    async def ended(shares: Shares) -> None:
        places = enter(shares, "flood", MOST_IN_PROGRESS + 1)
        enter(shares, "ann")
        (next_one,) = enter(shares, "flood")
        for place in places[:2]:
            assert isinstance(place, Place)
            shares.leave(place)

        assert isinstance(next_one, asyncio.Future)
        assert isinstance(await next_one, Place)

    run(ended)


def test_requests_that_wait_for_something_else_keep_no_place() -> None:
    async def test(shares: Shares) -> None:
        enter(shares, "gateway", MOST_IN_PROGRESS + 1)  # each of them waits for a locked item
        enter(shares, "ann")
        (next_one,) = enter(shares, "gateway")

        assert isinstance(next_one, asyncio.Future)
        # Sooner than it would get one because nobody else is there any more.
        async with asyncio.timeout(fair_shares.REMEMBERED_SECONDS / 2):
            assert isinstance(await next_one, Place)

    run(test)


def test_of_a_sender_a_limited_number_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fair_shares, "MOST_WAITING", 10)

    async def test(shares: Shares) -> None:
        enter(shares, "flood", MOST_IN_PROGRESS + 1)
        enter(shares, "ann")
        enter(shares, "flood", 10)

        with pytest.raises(Busy):
            shares.enter("flood")

    run(test)


def test_who_has_waited_for_too_long_is_answered_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fair_shares, "WAIT_SECONDS", 0.0)

    async def test(shares: Shares) -> None:
        enter(shares, "flood", MOST_IN_PROGRESS + 1)
        enter(shares, "ann")
        (late,) = enter(shares, "flood")
        assert isinstance(late, asyncio.Future)

        with pytest.raises(Busy):
            await late

    run(test)


def test_senders_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fair_shares, "MOST_REMEMBERED", 100)

    async def test(shares: Shares) -> None:
        for number in range(10_000):
            (place,) = enter(shares, f"guest-{number}")
            assert isinstance(place, Place)
            shares.leave(place)

        assert len(shares._senders) <= 100

    run(test)
