"""How a process's threads are shared out, so that a destination that answers slowly leaves room for the others."""

import threading
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager


class ConcurrencyLimits:
    """Each destination may have all threads but one, or all where it is the only one. Safe for threads."""

    def __init__(self, names: Collection[str], threads: int) -> None:
        self._names = names
        self._most = max(1, threads - 1) if len(names) > 1 else threads
        self._taken: Counter[str] = Counter()
        self._lock = threading.Lock()

    def open(self) -> Sequence[str]:
        """Return the destinations that may have a thread more."""
        with self._lock:
            return [name for name in self._names if self._taken[name] < self._most]

    @contextmanager
    def one(self, name: str) -> Iterator[bool]:
        """Give a thread to a destination while the block runs. Yields False if other threads took its share first."""
        with self._lock:
            has_room = self._taken[name] < self._most
            self._taken[name] += has_room
        try:
            yield has_room
        finally:
            with self._lock:
                self._taken[name] -= has_room
