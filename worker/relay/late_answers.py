"""Late answers: a call that outlasts its batch holds no lane and no thread, and is settled alone when it ends."""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import chain
from queue import SimpleQueue

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from domain import outbox
from domain.outbox import Call, InFlight, Outcome
from domain.runtime.rounds import isolate_round
from worker.relay.tally import Tally

#: An answer that could not be written, as PostgreSQL had trouble, is written again after this time.
SETTLE_AGAIN_SECONDS = 1.0

#: What has begun gets this time to end when the process stops. SIGTERM is answered within 10 s: the rest is for
#: releasing the lanes.
GRACE_SECONDS = 6.0

#: Who waits for a late answer looks this often, in seconds, whether the process stops.
LOOK_SECONDS = 0.1

NOT_CLAIMED = (
    "A late answer was settled, and whether that has made other events due was not looked for: the next wake-up finds"
    " them. If this continues, look at PostgreSQL."
)

log = structlog.get_logger()


@dataclass(frozen=True, eq=False)
class Expected:
    """A call that has not ended, how its outcome is settled, and when its row is sent again if it never ends."""

    call: Call
    settle: Callable[[Outcome], Tally]
    lapses_at: float
    answer: Future[Outcome]


Answered = SimpleQueue[tuple[Expected, Outcome] | None]


class LateAnswers:
    """The calls of this process that have outlasted their batches. Safe for threads.

    Each destination has a thread that settles what they answer. It then calls `settled`, as later rows of the
    reservation may be due.
    """

    def __init__(self, db: sessionmaker[Session]) -> None:
        self.settled: Callable[[], None] = lambda: None
        self._db = db
        self._changed = threading.Condition()
        #: By the name of the destination.
        self._expected: dict[str, set[Expected]] = {}
        self._tallies: dict[str, Tally] = {}
        self._stopped = threading.Event()
        #: By the name of the destination: what was answered, and the thread that settles it.
        self._answered: dict[str, Answered] = {}
        self._threads: list[threading.Thread] = []

    def expect(self, call: Call, in_flight: InFlight, settle: Callable[[Outcome], Tally]) -> None:
        """Settle a call as soon as it ends. Its row waits for that by now: it was committed."""
        expected = Expected(call, settle, time.monotonic() + in_flight.within.total_seconds(), in_flight.answer)
        with self._changed:
            self._expected.setdefault(call.destination, set()).add(expected)
            answered = self._answered.get(call.destination) or self._start(call.destination)
        in_flight.answer.add_done_callback(lambda answer: answered.put((expected, answer.result())))

    def unsettled(self, destination: str) -> int:
        """Return how many calls of a destination have ended and are not settled yet."""
        with self._changed:
            return sum(one.answer.done() for one in self._of(destination))

    def next(self, destinations: Iterable[str], stopping: threading.Event) -> Tally | None:
        """Wait until a late answer of these destinations is settled. Return what became of it, None if there is none.

        Answers that were settled since the last time are returned at once. When the process stops, it waits for no
        longer than GRACE_SECONDS.
        """
        names, until = [*destinations], float("inf")
        with self._changed:
            while not (settled := [self._tallies.pop(name) for name in names if name in self._tallies]):
                if not any(map(self._of, names)) or time.monotonic() > until:
                    return None
                if stopping.is_set():
                    until = min(until, time.monotonic() + GRACE_SECONDS)
                self._changed.wait(LOOK_SECONDS)
            return sum(settled, Tally())

    def close(self, seconds: float) -> None:
        """Wait for the calls to end, for so long at the most. The rows of the others are sent again at once."""
        with self._changed:
            self._changed.wait_for(lambda: not any(self._expected.values()), seconds)
        self._stopped.set()
        for answered in self._answered.values():
            answered.put(None)
        for thread in self._threads:
            thread.join()
        try:
            with self._db.begin() as session:
                for one in sorted(self._all(), key=lambda one: one.call.row.id):
                    outbox.give_up(session, one.call)
        except SQLAlchemyError as error:
            log.warning("late_answers.not_given_up", rows=len(self._all()), error=type(error).__name__)

    def _of(self, destination: str) -> Sequence[Expected]:
        now = time.monotonic()
        return [one for one in self._expected.get(destination, ()) if one.lapses_at > now]

    def _all(self) -> Sequence[Expected]:
        return [*chain.from_iterable(self._expected.values())]

    def _start(self, destination: str) -> Answered:
        answered: Answered = SimpleQueue()
        self._answered[destination] = answered
        thread = threading.Thread(target=self._run, args=[answered], name=f"late-answers-{destination}", daemon=True)
        self._threads.append(thread)
        thread.start()
        return answered

    def _run(self, answered: Answered) -> None:
        while answer := answered.get():
            self._settle(answered, *answer)

    def _settle(self, answered: Answered, expected: Expected, outcome: Outcome) -> None:
        tally = Tally()
        try:
            tally = expected.settle(outcome)
        except SQLAlchemyError as error:
            log.warning("late_answer.not_settled", row=expected.call.row.id, error=type(error).__name__)
            if time.monotonic() < expected.lapses_at and not self._stopped.wait(SETTLE_AGAIN_SECONDS):
                answered.put((expected, outcome))
                return
        # Nobody waits for this thread, so nobody else would say it. The row is sent again when its time is over.
        except Exception:
            log.exception("late_answer.failed", row=expected.call.row.id)
        self._finish(expected, tally)

    def _finish(self, expected: Expected, tally: Tally) -> None:
        name = expected.call.destination
        with self._changed:
            self._expected[name].discard(expected)
            self._tallies[name] = self._tallies.get(name, Tally()) + tally
            self._changed.notify_all()
        isolate_round(self.settled, thread="late answers", advice=NOT_CLAIMED)
