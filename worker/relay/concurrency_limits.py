"""Concurrency limits: a destination that answers slowly leaves threads of the process to the others."""

import threading
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager


class ConcurrencyLimits:
    """Each destination may use all threads but one, or all threads if it is the only one. Safe for threads."""

    def __init__(self, names: Collection[str], threads: int) -> None:
        self._names = names
        self._limit = max(1, threads - 1) if len(names) > 1 else threads
        self._used: Counter[str] = Counter()
        self._lock = threading.Lock()

    def with_room(self) -> Sequence[str]:
        """Return the destinations that may use one more thread."""
        with self._lock:
            return [name for name in self._names if self._used[name] < self._limit]

    @contextmanager
    def thread(self, name: str) -> Iterator[bool]:
        """Count this thread for a destination while the block runs. Yields False if others took the last one."""
        with self._lock:
            has_room = self._used[name] < self._limit
            self._used[name] += has_room
        try:
            yield has_room
        finally:
            with self._lock:
                self._used[name] -= has_room
