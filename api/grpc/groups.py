"""Groups of methods: how many of their calls are answered at a time, in all and for one client."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from api.grpc.time_limits import TimeLimit


class Group:
    """Methods that share places for `most` calls at a time, of which one client has at most `share`.

    Each call that has a place has a thread. `receiving` limits the time in which a call's message must come.
    """

    def __init__(self, name: str, *, most: int, share: int, receiving: TimeLimit) -> None:
        self.threads = ThreadPoolExecutor(most, thread_name_prefix=name)
        self.receiving = receiving
        self._share = share
        self._lock = threading.Lock()
        self._free = most
        self._taken: Counter[str] = Counter()

    def is_used(self) -> bool:
        """Return whether a call has a place."""
        return bool(self._taken)

    def take(self, client: str) -> bool:
        """Take a place for a call of this client. Return whether there was one."""
        with self._lock:
            if not self._free or self._taken[client] >= self._share:
                return False
            self._free -= 1
            self._taken[client] += 1
            return True

    def give_back(self, client: str) -> None:
        """Give back the place that was taken for a call of this client."""
        with self._lock:
            self._free += 1
            self._taken[client] -= 1
            if not self._taken[client]:
                del self._taken[client]
