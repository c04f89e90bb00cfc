"""Group commit: requests that arrive while a commit is in flight form the next set.

There is no timer and no waiting window. An idle service answers a lone request at once, and a busy one pays for a
row lock and a commit once a set, not once a request.

Two writers share the work, each with a thread and a connection. The brief one takes every request, and waits for
nobody: what it can't decide at once, because another transaction has locked the item, it passes on. The patient one
takes these, and waits. So a locked item delays only the requests for that item.
"""

import asyncio
import concurrent.futures
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from sqlalchemy.orm import Session, sessionmaker

from api.group_commit.queues import Member
from api.group_commit.writers import Act, BriefWriter, Commits, PatientWriter
from domain.idempotency import Answered
from domain.reservations import Reserve
from domain.runtime.errors import Busy
from domain.runtime.metrics import Counter, Gauge

#: A request that was not decided within this time is answered busy. One in the background has more time, because it
#: waits for all others.
QUEUE_SECONDS = 5.0
BACKGROUND_SECONDS = 30.0

#: How often requests that have waited for too long are looked for.
LOOK_SECONDS = 0.05

QUEUED = Gauge(
    "holdfast_group_commit_queue",
    "Requests that wait to be committed. Alert if it comes near QUEUE_LIMIT: further requests are answered 503.",
    multiprocess_mode="livesum",
)
AGE = Gauge(
    "holdfast_group_commit_age_seconds",
    "How long the oldest set in flight has been in flight. Alert if it is above 2: PostgreSQL hangs.",
    multiprocess_mode="livemax",
)
BUSY = Counter(
    "holdfast_group_commit_busy",
    "Requests answered 503 because the queue was full, or because they were not decided in time."
    " Alert on any increase.",
)


class GroupCommit:
    """The writers and their queues.

    `act` decides a set of requests within a session. `committed` is called after each commit that has written
    something. `brief_db` and `patient_db` need one connection each.
    """

    def __init__(
        self,
        brief_db: sessionmaker[Session],
        patient_db: sessionmaker[Session],
        act: Act,
        *,
        queue_limit: int,
        committed: Callable[[], None],
    ) -> None:
        self._queue_limit = queue_limit
        self._patient = PatientWriter(Commits(patient_db, act, committed), self._answer)
        self._brief = BriefWriter(Commits(brief_db, act, committed), self._answer, self._patient.queue)
        self._writers = (self._brief, self._patient)

    def start(self) -> None:
        """Begin to commit. Call it on the event loop that awaits `submit`."""
        self._loop = asyncio.get_running_loop()
        for writer in self._writers:
            writer.thread.start()
        self._looking = self._loop.create_task(self._look_for_overdue())

    def submit(self, request: Reserve, *, is_background: bool = False) -> asyncio.Future[Answered]:
        """Return the future of the answer, which is committed by then. Call it on the event loop.

        Background requests fill what others leave of a set. The future raises the refusal; Busy if it was not decided
        in time; OutcomeUnknown; or the error of the transaction.
        """
        future: asyncio.Future[Answered] = self._loop.create_future()
        deadline = time.monotonic() + (BACKGROUND_SECONDS if is_background else QUEUE_SECONDS)
        # Each of the two kinds has as many places, so an import takes none from other requests.
        refused = self._brief.queue.put(Member(request, future, deadline, is_background), most=self._queue_limit)
        if refused:
            BUSY.inc()
            _set([refused], [Busy()])
        return future

    def submit_from_thread(self, request: Reserve) -> "concurrent.futures.Future[Answered]":
        """Do what `submit` does, on any thread. If the future is cancelled while it is queued, nothing is done."""
        future: concurrent.futures.Future[Answered] = concurrent.futures.Future()
        member = Member(request, future, time.monotonic() + QUEUE_SECONDS)
        refused = self._brief.queue.put(member, most=self._queue_limit)
        if refused:
            BUSY.inc()
            self._answer([refused], [Busy()])
        return future

    def age(self) -> float:
        """Return for how many seconds the oldest set in flight has been in flight, 0 if there is none."""
        return max(writer.age() for writer in self._writers)

    async def close(self) -> None:
        """Decide what is queued, then stop."""
        for writer in self._writers:  # in this order: the brief one passes requests on to the patient one
            writer.queue.close()
            await asyncio.to_thread(writer.thread.join)
        self._looking.cancel()

    async def _look_for_overdue(self) -> None:
        while True:
            for writer in self._writers:
                overdue = writer.queue.take_overdue(time.monotonic())
                BUSY.inc(len(overdue))
                _set(overdue, [Busy() for _ in overdue])
            QUEUED.set(sum(len(writer.queue) for writer in self._writers))
            AGE.set(self.age())
            await asyncio.sleep(LOOK_SECONDS)

    def _answer(self, members: Sequence[Member], outcomes: Sequence[Answered | Exception]) -> None:
        self._loop.call_soon_threadsafe(_set, members, outcomes)


def _set(members: Sequence[Member], outcomes: Sequence[Answered | Exception]) -> None:
    for member, outcome in zip(members, outcomes, strict=True):
        if member.future.done():  # its client has disconnected; the reservation stays
            continue
        # The future of a thread may be cancelled in this very moment.
        with suppress(concurrent.futures.InvalidStateError):
            if isinstance(outcome, Exception):
                member.future.set_exception(outcome)
            else:
                member.future.set_result(outcome)
