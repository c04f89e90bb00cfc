"""What a broker says of the messages of one round, as it comes in."""

from collections.abc import Sequence
from threading import Event, Lock

from domain.outbox import Outcome


class Answers:
    """One answer for each message, by its position. Given by any thread, awaited by one; the first answer counts."""

    def __init__(self, messages: int) -> None:
        self._outcomes: list[Outcome | None] = [None] * messages
        self._left = messages
        self._lock = Lock()
        self._complete = Event()

    def give(self, position: int, outcome: Outcome) -> None:
        with self._lock:
            if self._outcomes[position] is not None:
                return
            self._outcomes[position] = outcome
            self._left -= 1
        if not self._left:
            self._complete.set()

    def give_rest(self, outcome: Outcome) -> None:
        """Answer for all that have no answer yet."""
        with self._lock:
            self._outcomes = [outcome if given is None else given for given in self._outcomes]
            self._left = 0
        self._complete.set()

    def are_complete(self) -> bool:
        return not self._left

    def wait(self, timeout_seconds: float) -> bool:
        """Wait until all are answered. Return whether they are."""
        return self._complete.wait(timeout_seconds)

    def outcomes(self) -> Sequence[Outcome]:
        """Return the answers, when they are complete."""
        return [given for given in self._outcomes if given is not None]
