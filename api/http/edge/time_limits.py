"""Time limits for many requests at once, with one timer: a timer for each would cost more than reading a body."""

import asyncio
from math import inf
from types import TracebackType
from typing import Self

#: How often requests whose time has passed are looked for.
LOOK_SECONDS = 0.25


class TimeLimits:
    """The blocks of code that run within a time limit of `seconds`, the oldest first, and at most `most` of them."""

    def __init__(self, *, seconds: float, most: float = inf) -> None:
        self._seconds = seconds
        self._most = most
        self._running: dict[TimeLimit, None] = {}
        self._is_looking = False

    def begin(self) -> "TimeLimit":
        """Return the limit of a block that begins now. If there are too many, the oldest ends at once."""
        return TimeLimit(self, asyncio.get_running_loop().time() + self._seconds)

    def add(self, limit: "TimeLimit") -> None:
        self._running[limit] = None
        if len(self._running) > self._most:
            self.end_oldest()
        if not self._is_looking:
            self._is_looking = True
            self._look_later()

    def end_oldest(self) -> None:
        """End the block that began first, if there is one."""
        if self._running:
            next(iter(self._running)).expire()

    def discard(self, limit: "TimeLimit") -> None:
        self._running.pop(limit, None)

    def _look_later(self) -> None:
        asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        now = asyncio.get_running_loop().time()
        while self._running and (oldest := next(iter(self._running))).deadline <= now:
            oldest.expire()
        self._is_looking = bool(self._running)
        if self._is_looking:
            self._look_later()


class TimeLimit:
    """Raises TimeoutError in its block, within LOOK_SECONDS after its deadline. It works as `asyncio.timeout` does."""

    __slots__ = ("_before", "_has_expired", "_limits", "_task", "deadline")

    def __init__(self, limits: TimeLimits, deadline: float) -> None:
        self._limits = limits
        self.deadline = deadline
        self._has_expired = False

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None
        self._task, self._before = task, task.cancelling()
        self._limits.add(self)
        return self

    def expire(self) -> None:
        """Cancel the block."""
        self._limits.discard(self)
        self._has_expired = True
        self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._limits.discard(self)
        # If somebody else has cancelled the task as well, it stays cancelled.
        if self._has_expired and self._task.uncancel() <= self._before and kind is asyncio.CancelledError:
            raise TimeoutError from error
