"""Time limits: a block that takes too long raises TimeoutError; a task that is cancelled otherwise is cancelled."""

import asyncio
from contextlib import suppress

import pytest

from api.http.edge import time_limits
from api.http.edge.time_limits import TimeLimits

#: Far longer than anything here should take.
EVER = 60.0


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time_limits, "LOOK_SECONDS", 0.01)


async def within(limits: TimeLimits, seconds: float = EVER) -> str:
    try:
        with limits.begin():
            await asyncio.sleep(seconds)
    except TimeoutError:
        return "timed out"
    return "done"


def test_a_block_that_takes_too_long_raises_timeout_error_and_its_task_goes_on() -> None:
    async def test() -> None:
        limits = TimeLimits(seconds=0.02, most=10)
        assert [*await asyncio.gather(within(limits), within(limits, 0), within(limits))] == [
            "timed out",
            "done",
            "timed out",
        ]
        assert await within(limits) == "timed out"

    asyncio.run(test())


def test_if_there_are_too_many_the_oldest_ends_at_once() -> None:
    async def test() -> None:
        limits = TimeLimits(seconds=EVER, most=2)
        tasks = [asyncio.create_task(within(limits)) for _ in range(5)]
        done, running = await asyncio.wait(tasks, timeout=0.5)
        assert done == set(tasks[:3]) and {task.result() for task in done} == {"timed out"}
        for task in running:
            task.cancel()

    asyncio.run(test())


def test_a_task_that_is_cancelled_meanwhile_is_cancelled() -> None:
    async def test() -> None:
        limits = TimeLimits(seconds=EVER, most=1)
        task = asyncio.create_task(within(limits))
        await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        assert task.cancelled()

    asyncio.run(test())


def test_a_task_that_is_cancelled_as_its_time_ends_is_cancelled() -> None:
    async def test() -> None:
        limits = TimeLimits(seconds=EVER, most=1)
        task = asyncio.create_task(within(limits))
        await asyncio.sleep(0)
        other = asyncio.create_task(within(limits))
        await asyncio.sleep(0)  # so the first has expired, and is cancelled before it runs
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        assert task.cancelled()
        other.cancel()

    asyncio.run(test())


def test_the_timer_ends_when_nothing_is_limited() -> None:
    async def test() -> None:
        limits = TimeLimits(seconds=EVER, most=1)
        await within(limits, 0)
        await asyncio.sleep(0.05)
        assert not limits._is_looking
        assert await within(TimeLimits(seconds=0.01, most=1)) == "timed out"

    asyncio.run(test())
