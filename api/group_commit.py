"""Group commit: requests that arrive while a commit is in flight form the next set.

There is no timer and no waiting window. An idle service answers a lone request at once, and a busy one pays for a
row lock and a commit once a set, not once a request.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue

import structlog
from sqlalchemy.orm import Session, sessionmaker

from domain import outbox
from domain.idempotency import Answered
from domain.reservations import KeyRace, Reserve
from domain.runtime.database import commit_without_waiting, trouble
from domain.runtime.errors import Busy, Refusal
from domain.runtime.metrics import Counter, Gauge, Histogram

#: The largest set. A larger one would commit no faster, and each of its requests would wait longer.
LARGEST_SET = 256

#: How often a request is tried whose key races with a duplicate. Once the duplicate has committed, its answer is found.
RACE_ATTEMPTS = 3

SET_SIZE = Histogram(
    "holdfast_group_commit_set_size",
    "Requests committed together, at most 256. If it is always near 256, the writer is the limit: add processes.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
)
SET_SECONDS = Histogram(
    "holdfast_group_commit_seconds",
    "How long it took to decide and commit a set of requests."
    " Alert if the 99th percentile is above 1 s: locks or the disk are slow.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
QUEUED = Gauge(
    "holdfast_group_commit_queue",
    "Requests that wait to be committed. Alert if it comes near QUEUE_LIMIT: further requests are answered 503.",
    multiprocess_mode="livesum",
)
BUSY = Counter("holdfast_group_commit_busy", "Requests answered 503 because the queue was full. Alert on any increase.")

log = structlog.get_logger()

Outcome = Answered | Refusal | Exception


@dataclass(frozen=True, slots=True)
class _Member:
    request: Reserve
    future: "asyncio.Future[Answered]"


class GroupCommit:
    """A writer thread and its queue.

    `act` decides a set of requests within a session. `committed` is called after each commit that has written
    something.
    """

    def __init__(
        self,
        db: sessionmaker[Session],
        act: Callable[[Session, Sequence[Reserve]], Sequence[Answered | Refusal]],
        *,
        queue_limit: int,
        committed: Callable[[], None],
    ) -> None:
        self._db = db
        self._act = act
        self._queue_limit = queue_limit
        self._committed = committed
        self._queue: SimpleQueue[_Member | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="group-commit", daemon=True)

    def start(self) -> None:
        """Begin to commit. Call it on the event loop that awaits `submit`."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def submit(self, request: Reserve) -> Answered:
        """Return the answer once it is committed. Raises the refusal, Busy, or the error of the transaction."""
        waiting = self._queue.qsize()
        if waiting >= self._queue_limit:
            BUSY.inc()
            raise Busy
        member = _Member(request, self._loop.create_future())
        QUEUED.set(waiting + 1)  # before `put`: the writer sets it as soon as it takes members
        self._queue.put(member)
        return await member.future

    async def close(self) -> None:
        """Commit what is queued, then stop."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        open_for_more = True
        while open_for_more:
            members, open_for_more = self._next_set()
            QUEUED.set(self._queue.qsize())
            SET_SIZE.observe(len(members))
            with SET_SECONDS.time():
                outcomes = self._isolate_members([member.request for member in members])
            self._loop.call_soon_threadsafe(_answer, members, outcomes)

    def _next_set(self) -> tuple[Sequence[_Member], bool]:
        """Wait for a request. Return it with all others in the queue, and whether more sets will follow."""
        members = []
        member = self._queue.get()
        try:
            while member is not None:
                members.append(member)
                if len(members) == LARGEST_SET:
                    return members, True
                member = self._queue.get_nowait()
        except Empty:
            return members, True
        return members, False

    def _isolate_members(self, requests: Sequence[Reserve], attempts: int = RACE_ATTEMPTS) -> Sequence[Outcome]:
        """Decide a set in one transaction. If it fails as a whole, decide its members one by one."""
        try:
            return self._commit(requests)
        # Every error is caught here, and nowhere else in the API: a request that makes a transaction fail must fail
        # alone, and the writer thread must continue with the next set.
        except Exception as error:
            is_alone = len(requests) == 1
            if is_alone and isinstance(error, KeyRace):
                return self._isolate_members(requests, attempts - 1) if attempts > 1 else [Busy()]
            if is_alone or trouble(error):
                return [error] * len(requests)
            log.warning("reservations.set_split", members=len(requests), error=type(error).__name__)
            return [outcome for request in requests for outcome in self._isolate_members([request])]

    def _commit(self, requests: Sequence[Reserve]) -> Sequence[Answered | Refusal]:
        if not requests:
            return []
        with self._db() as session:
            outcomes = self._act(session, requests)
            # A set of refusals may have expired overdue holds, and recorded events of that.
            wrote = outbox.has_recorded(session) or any(
                isinstance(outcome, Answered) and not outcome.replayed for outcome in outcomes
            )
            if not wrote:
                commit_without_waiting(session)
            session.commit()
        if wrote:
            self._committed()
        return outcomes


def _answer(members: Sequence[_Member], outcomes: Sequence[Outcome]) -> None:
    for member, outcome in zip(members, outcomes, strict=True):
        if member.future.done():  # its client has disconnected; the reservation stays
            continue
        if isinstance(outcome, Exception):
            member.future.set_exception(outcome)
        else:
            member.future.set_result(outcome)
