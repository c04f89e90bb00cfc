"""A deadline that all reads and writes of one exchange share."""

import threading
import time


class Deadline(threading.local):
    """The moment until which the exchange of this thread may take, by the monotonic clock."""

    at = float("inf")

    #: Whether the exchange opened a connection. If it did not, it uses one that an earlier exchange left open.
    opened = False

    #: Whether a byte of an answer was read, where the reader says so.
    answered = False

    def start(self, timeout_seconds: float) -> None:
        self.at = time.monotonic() + timeout_seconds
        self.opened = self.answered = False

    def remaining_seconds(self) -> float:
        """Return the seconds until the deadline. Raises TimeoutError if it has passed."""
        remaining = self.at - time.monotonic()
        if remaining <= 0:
            raise TimeoutError("the answer did not end in time")
        return remaining
