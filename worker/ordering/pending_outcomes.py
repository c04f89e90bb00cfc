"""The outcomes of messages that were sent together, as the broker's answers arrive one by one."""

from collections.abc import Sequence
from threading import Event, Lock

from domain.outbox import Outcome


class PendingOutcomes:
    """One outcome for each message, by its position. Any thread may resolve one; one thread waits for all of them.

    The first outcome of a message counts.
    """

    def __init__(self, messages: int) -> None:
        self._outcomes: list[Outcome | None] = [None] * messages
        self._missing = messages
        self._lock = Lock()
        self._complete = Event()

    def resolve(self, position: int, outcome: Outcome) -> None:
        with self._lock:
            if self._outcomes[position] is not None:
                return
            self._outcomes[position] = outcome
            self._missing -= 1
        if not self._missing:
            self._complete.set()

    def resolve_missing(self, outcome: Outcome) -> None:
        """Give this outcome to all messages that have none yet."""
        with self._lock:
            self._outcomes = [outcome if known is None else known for known in self._outcomes]
            self._missing = 0
        self._complete.set()

    def is_complete(self) -> bool:
        return not self._missing

    def wait(self, timeout_seconds: float) -> bool:
        """Wait until every message has an outcome. Return whether all have."""
        return self._complete.wait(timeout_seconds)

    def outcomes(self) -> Sequence[Outcome]:
        """Return the outcomes. Call it only when they are complete."""
        return [outcome for outcome in self._outcomes if outcome is not None]
