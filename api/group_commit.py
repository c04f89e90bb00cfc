"""Requests that arrive while a commit is in flight form the next set.

There is no timer and no waiting window: an idle service answers a lone request at once,
and a busy one pays for a row lock and a commit once a set, not once a request.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue

import structlog
from sqlalchemy.orm import Session, sessionmaker

from api.health.routes import metrics
from domain import outbox
from domain.idempotency.stored_answers import Answered
from domain.reservations import KeyRace, Reserve
from domain.runtime.database import commit_without_waiting, trouble
from domain.runtime.errors import Busy, Refusal

#: More than this many requests in one transaction gain nothing and make each of them wait.
LARGEST_SET = 256

#: A key that races is decided by its twin's commit: the next look finds the answer.
RACE_ATTEMPTS = 3

log = structlog.get_logger()

Outcome = Answered | Refusal | Exception


@dataclass(frozen=True, slots=True)
class _Member:
    request: Reserve
    future: "asyncio.Future[Answered]"


class GroupCommit:
    """One writer thread, and the queue before it.

    `act` decides a set of requests within a session; `committed` is called after a
    commit that wrote something.
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
        """Begin to commit. Called on the event loop that `submit` will be awaited on."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def submit(self, request: Reserve) -> Answered:
        """Return the answer once it is committed. Raises the refusal, Busy, or what went wrong."""
        waiting = self._queue.qsize()
        if waiting >= self._queue_limit:
            metrics.BUSY.inc()
            raise Busy
        member = _Member(request, self._loop.create_future())
        metrics.QUEUED.set(waiting + 1)  # first, as the writer sets it to what it leaves
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
            metrics.QUEUED.set(self._queue.qsize())
            metrics.SET_SIZE.observe(len(members))
            with metrics.SET_SECONDS.time():
                outcomes = self._decide([member.request for member in members])
            self._loop.call_soon_threadsafe(_answer, members, outcomes)

    def _next_set(self) -> tuple[Sequence[_Member], bool]:
        """Wait for a request, and take all that have come by then. The second is False for the last set."""
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

    def _decide(self, requests: Sequence[Reserve], attempts: int = RACE_ATTEMPTS) -> Sequence[Outcome]:
        """Decide a set in one transaction; if it fails as a whole, its members one by one."""
        try:
            return self._commit(requests)
        # The one place where a poisonous request must not stop its neighbours.
        except Exception as error:
            lone = len(requests) == 1
            if lone and isinstance(error, KeyRace):
                return self._decide(requests, attempts - 1) if attempts > 1 else [Busy()]
            if lone or trouble(error):
                return [error] * len(requests)
            log.warning("reservations.set_split", members=len(requests), error=type(error).__name__)
            return [outcome for request in requests for outcome in self._decide([request])]

    def _commit(self, requests: Sequence[Reserve]) -> Sequence[Answered | Refusal]:
        if not requests:
            return []
        with self._db() as session:
            outcomes = self._act(session, requests)
            # A set that only refuses may have taken lapsed holds back, and recorded that.
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
        if member.future.done():  # its client has gone away; what was committed stays
            continue
        if isinstance(outcome, Exception):
            member.future.set_exception(outcome)
        else:
            member.future.set_result(outcome)
