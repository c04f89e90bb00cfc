"""Places: how many calls are answered at a time, in all and for one client."""

import threading
from collections import Counter



class Places:
    """Places for `most` calls at a time, of which one client has at most `share`."""

    def __init__(self, *, most: int, share: int) -> None:
        self._most = most
        self._share = share
        self._lock = threading.Lock()
        self._taken: Counter[str] = Counter()
        self._free = most

    def take(self, client: str) -> bool:
        """Take a place for a call of this client. Return whether there was one."""
        with self._lock:
            if not self._free or self._taken[client] >= self._share:
                return False
            self._free -= 1
            self._taken[client] += 1
            return True

    def give_back(self, client: str) -> None:
        """Give a place back that was taken for a call of this client."""
        with self._lock:
            self._free += 1
            self._taken[client] -= 1
            if not self._taken[client]:
                del self._taken[client]
