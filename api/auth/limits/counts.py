"""Counts: how much of a rate each sender has used, in memory. Nobody waits for them, and they take bounded memory."""

import threading
from collections.abc import Callable, Mapping
from math import ceil

from api.auth.limits.rates import Rate

#: The senders that are counted one by one in a window of time. Further ones share counts, of which there are so many.
MOST_COUNTED, SHARED_COUNTS = 50_000, 8_192

#: A process shares what it has counted of a sender when that is this part of the quota.
BLOCKS = 20


class Count:
    """What a sender has used in a window, as far as this process knows, and what it has not shared of that yet."""

    __slots__ = ("refused", "unshared", "used")

    def __init__(self) -> None:
        self.used = 0
        self.unshared = 0
        self.refused = 0


#: Of a sender that has used nothing.
NOTHING = Count()

#: Takes a count that is to be shared with the other processes: its window, its key, and itself.
Share = Callable[["Counts", int, str, Count], None]


class Counts:
    """The counts of one rate. Safe for threads.

    Time is cut into windows of the length of the rate, at the same moments in every process. What was used in the
    window before counts with the part of it that is within the last `seconds`.

    No count is dropped before its window is over, so nobody gets rid of a count by being many. Who comes when there is
    no place has a count in common with others, which nobody can choose: the hashes of texts differ from process to
    process.
    """

    def __init__(self, rate: Rate, share: Share | None = None) -> None:
        self.rate = rate
        self.lock = threading.Lock()
        self._share = share
        self._block = max(1, rate.quota // BLOCKS)
        self._window = 0
        self._now: dict[str, Count] = {}
        self._before: dict[str, Count] = {}

    def use(self, key: str, now: float) -> Count | None:
        """Count a request of a sender, by the time since the epoch. Return its count if the request is too many."""
        with self.lock:
            window = self._turn_to(now)
            count = self._now.get(key)
            if count is None:
                key, count = self._add(key)
            if self._is_used_up(key, count, now):
                count.refused += 1
                return count
            count.used += 1
            count.unshared += 1
            is_block = count.unshared >= self._block
        if is_block and self._share and key[0] != "#":
            self._share(self, window, key, count)
        return None

    def is_used_up(self, key: str, now: float) -> bool:
        """Return whether the next request of a sender would be too many. It counts nothing."""
        with self.lock:
            self._turn_to(now)
            return self._is_used_up(key, self._found(self._now, key) or NOTHING, now)

    def seconds_until_free(self, key: str, count: Count, now: float) -> int:
        """Return after how many seconds a request of a sender that has used its quota is not too many any more."""
        rate = self.rate
        elapsed = now % rate.seconds
        before = self._found(self._before, key)
        if count.used < rate.quota and before is not None and before.used:
            wanted, at = 1 - (rate.quota - 1 - count.used) / before.used, 0
        else:
            wanted, at = 1 - (rate.quota - 1) / max(count.used, 1), rate.seconds
        return max(1, min(2 * rate.seconds, ceil(at + wanted * rate.seconds - elapsed)))

    def _turn_to(self, now: float) -> int:
        """Begin the window of this time, unless it has begun. Return the number of the present one.

        A time in the window before is that of a thread that has read the clock a moment ago, or of a clock that was set
        back a little: no count is dropped for it.
        """
        window = int(now // self.rate.seconds)
        if window not in (self._window, self._window - 1):
            self._before = self._now if window == self._window + 1 else {}
            self._now, self._window = {}, window
        return self._window

    def _is_used_up(self, key: str, count: Count, now: float) -> bool:
        return count.used + (self._used_before(key, now) if self._before else 0) > self.rate.quota - 1

    def _add(self, key: str) -> tuple[str, Count]:
        if len(self._now) >= MOST_COUNTED:
            key = _shared(key)
        return key, self._now.setdefault(key, Count())

    def _used_before(self, key: str, now: float) -> float:
        before = self._found(self._before, key)
        elapsed = max(0.0, now - self._window * self.rate.seconds)
        return before.used * (1 - elapsed / self.rate.seconds) if before else 0

    def _found(self, counts: Mapping[str, Count], key: str) -> Count | None:
        """Return the count of a sender in a window: its own one, or one that it shares with others."""
        found = counts.get(key)
        return counts.get(_shared(key)) if found is None and len(counts) >= MOST_COUNTED else found


def _shared(key: str) -> str:
    """Return the key of the count that a sender shares with others."""
    return f"#{hash(key) % SHARED_COUNTS}"
