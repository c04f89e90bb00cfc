"""Rests: a client that has taken much of the processor waits before it takes more, and others go before it."""

import time
from collections.abc import Hashable

#: A client rests only for what it owes beyond this time: a few requests at once are answered at once.
ALLOWANCE_SECONDS = 0.1


class Rests:
    """How long clients rest, so that all of them together take `processors` of the processor's time in the long run.

    The clients that owe a rest share this: the more there are, the longer each of them rests. One that owes none does
    not wait for the others.
    """

    def __init__(self, processors: float | None) -> None:
        """Without a number of `processors`, nobody rests."""
        self._processors = processors
        self._until: dict[Hashable, float] = {}

    def seconds_of(self, client: Hashable, now: float) -> float:
        """Return for how long a client still rests, by the monotonic clock."""
        return max(0.0, self._until.get(client, 0.0) - ALLOWANCE_SECONDS - now)

    def charge(self, client: Hashable, computed_seconds: float) -> None:
        """Let a client rest for what it has computed."""
        if self._processors is None:
            return
        now = time.monotonic()
        self._until = {other: until for other, until in self._until.items() if until > now}
        owing = len({*self._until, client})
        rest = computed_seconds * max(0.0, owing / self._processors - 1)
        self._until[client] = self._until.get(client, now) + rest
