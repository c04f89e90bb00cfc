"""The two writers of the group commit."""

import threading
import time
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Protocol

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker

from api.group_commit.queues import Member, Queue, WaitingQueue
from domain import items, outbox
from domain.idempotency import Answered
from domain.reservations import BRIEF, THOROUGH, Deferred, Effort, KeyRace, Reserve
from domain.runtime import database
from domain.runtime.database import LOCK_TIMEOUT_MILLISECONDS, commit, commit_without_waiting, lock_at_most
from domain.runtime.database_errors import is_lock_timeout, trouble
from domain.runtime.errors import Busy, DatabaseUnavailable, OutcomeUnknown, Refusal, Unavailable
from domain.runtime.metrics import Counter, Histogram
from domain.runtime.settings import Settings

#: The largest set. A larger one would commit no faster, and each of its requests would wait longer.
LARGEST_SET = 256

#: A set that PostgreSQL does not commit within this time counts as hung: its connection is cut off.
COMMIT_SECONDS = 5.0

#: How often the patient writer tries the requests that it could not decide yet.
TRY_SECONDS = 0.05

#: How long it waits for the lock of one item before it tries the others again.
LOCK_MILLISECONDS = 50

#: How many times as long as the thorough work on an item took it does none, so that others have most of the processor.
REST_FACTOR = 2.0

#: How often a request is tried whose key races with a duplicate. Once the duplicate has committed, its answer is found.
RACE_ATTEMPTS = 3

#: A connection that breaks within this time was broken before.
STALE_SECONDS = 1.0

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
DEFERRED = Counter(
    "holdfast_group_commit_deferred", "Requests that had to wait because another transaction had locked their item."
)

log = structlog.get_logger()

Outcome = Answered | Refusal | Deferred

#: The id or the sku of an item, by which a request names it.
Name = int | str


class Act(Protocol):
    """Decides a set of requests within a session, with some effort."""

    def __call__(self, session: Session, requests: Sequence[Reserve], /, *, effort: Effort) -> Sequence[Outcome]: ...


#: Answers members, from the thread of a writer.
Answer = Callable[[Sequence[Member], Sequence[Answered | Exception]], None]


def connect_writers(settings: Settings) -> tuple[sessionmaker[Session], sessionmaker[Session]]:
    """Return sessions for the brief and for the patient writer, with a connection each.

    They share these with nobody, so other requests never delay reservations.
    """
    brief, patient = (_engine(settings) for _ in range(2))
    return database.sessions(brief), database.sessions(patient)


def _engine(settings: Settings) -> Engine:
    # Unchecked: a set whose connection turns out to be broken is decided again, which saves a round trip for all.
    return database.connect(settings, connections=1, checked=False, transaction_seconds=COMMIT_SECONDS, by_index=True)


class Commits:
    """Decides and commits sets, each in a transaction of its own."""

    def __init__(self, db: sessionmaker[Session], act: Act, committed: Callable[[], None]) -> None:
        self._db = db
        self._act = act
        self._committed = committed

    def commit(self, members: Sequence[Member], waited_for: Name | None = None) -> Sequence[Outcome]:
        """Return the outcomes once they are committed. For an item that is `waited_for`, it does thorough work."""
        requests = [member.request for member in members]
        with self._db() as session:
            if waited_for is not None and not _has_waited_for(session, waited_for):
                return [Deferred()] * len(requests)
            outcomes = self._act(session, requests, effort=BRIEF if waited_for is None else THOROUGH)
            # A set of refusals may have expired overdue holds, and recorded events of that.
            wrote = outbox.has_recorded(session) or any(
                isinstance(outcome, Answered) and not outcome.replayed for outcome in outcomes
            )
            if not wrote:
                commit_without_waiting(session)
            commit(session)
        if wrote:
            self._committed()
        return outcomes


def _has_waited_for(session: Session, item: Name) -> bool:
    """Lock an item, and return whether that took no longer than LOCK_MILLISECONDS. No other item is locked then."""
    lock_at_most(session, LOCK_MILLISECONDS)
    try:
        items.lock(session, [item])
    except OperationalError as error:
        if is_lock_timeout(error):
            return False
        raise
    lock_at_most(session, LOCK_TIMEOUT_MILLISECONDS)
    return True


class _Writer:
    """A thread that decides the members of its queue."""

    def __init__(self, name: str, commits: Commits, answer: Answer) -> None:
        self.thread = threading.Thread(target=self._run, name=f"group-commit-{name}", daemon=True)
        self._commits = commits
        self._answer = answer
        self._since: float | None = None

    def age(self) -> float:
        """Return for how many seconds the set in flight has been in flight, 0 if there is none."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    def _run(self) -> None:
        raise NotImplementedError

    def _isolate(self, members: Sequence[Member], waited_for: Name | None = None) -> Sequence[Member]:
        """Decide members together. Whatever fails as a whole is halved, until what makes it fail is alone.

        Return those that were deferred; all others are answered. Trouble with the database ends it at once.
        """
        deferred: list[Member] = []
        # Some were answered, or given up by their clients, since they were put into the queue.
        wanted = [member for member in members if not member.future.done()]
        parts: list[Sequence[Member]] = [wanted] if wanted else []
        while parts:
            part = parts.pop()
            try:
                outcomes = self._commit(part, waited_for)
            except KeyRace as race:
                parts += self._split_raced(part, race)
            # Every error is caught: a request that makes a transaction fail must fail alone, and the thread must
            # continue with the next set.
            except Exception as error:
                passing = error if isinstance(error, Unavailable) else trouble(error)
                if passing:
                    self._refuse(part, type(passing))
                    # The other parts were not tried: their outcome is known.
                    untried = DatabaseUnavailable if isinstance(passing, OutcomeUnknown) else type(passing)
                    self._refuse([*chain(*parts)], untried)
                    break
                if len(part) == 1:
                    self._answer(part, [error])
                    continue
                log.warning("reservations.set_split", members=len(part), error=type(error).__name__)
                half = len(part) // 2
                parts += [part[half:], part[:half]]
            else:
                deferred += self._answer_decided(part, outcomes)
        return deferred

    def _commit(self, members: Sequence[Member], waited_for: Name | None) -> Sequence[Outcome]:
        SET_SIZE.observe(len(members))
        self._since = began = time.monotonic()
        try:
            with SET_SECONDS.time():
                return self._commits.commit(members, waited_for)
        # Every error is raised again, but for one.
        except Exception as error:
            # A connection that broke while it was idle: nothing was sent to PostgreSQL, which may be back already.
            if isinstance(trouble(error), DatabaseUnavailable) and time.monotonic() - began < STALE_SECONDS:
                return self._commits.commit(members, waited_for)
            raise
        finally:
            self._since = None

    def _split_raced(self, part: Sequence[Member], race: KeyRace) -> Sequence[Sequence[Member]]:
        """Return the members that raced, and the others, as parts to decide again."""
        raced = [part[place] for place in race.places]
        for member in raced:
            member.races += 1
        hopeless = [member for member in raced if member.races >= RACE_ATTEMPTS]
        self._refuse(hopeless, Busy)
        again = [member for member in raced if member.races < RACE_ATTEMPTS]
        others = [member for place, member in enumerate(part) if place not in race.places]
        return [members for members in (again, others) if members]

    def _answer_decided(self, members: Sequence[Member], outcomes: Sequence[Outcome]) -> Sequence[Member]:
        """Answer the members that were decided, and return the others."""
        decided: list[Member] = []
        answers: list[Answered | Exception] = []
        deferred: list[Member] = []
        for member, outcome in zip(members, outcomes, strict=True):
            if isinstance(outcome, Deferred):
                # It continues to wait for the item that it has waited for, if that is still locked.
                if outcome.items and not set(member.waits_for) & set(outcome.items):
                    member.waits_for = outcome.items
                deferred.append(member)
            else:
                decided.append(member)
                answers.append(outcome)
        self._answer(decided, answers)
        return deferred

    def _refuse(self, members: Sequence[Member], kind: type[Unavailable]) -> None:
        """Answer each member with an error of its own: one for all would keep the tracebacks of all alive."""
        if members:
            self._answer(members, [kind() for _ in members])


class BriefWriter(_Writer):
    """Decides what it can at once, and passes the rest on. It waits for no lock of an item."""

    def __init__(self, commits: Commits, answer: Answer, waiting: WaitingQueue) -> None:
        super().__init__("brief", commits, answer)
        self.queue = Queue()
        self._waiting = waiting

    def _run(self) -> None:
        while members := self.queue.take(LARGEST_SET):
            deferred = self._isolate(members)
            if deferred:
                DEFERRED.inc(len(deferred))
                self._refuse(self._waiting.admit(deferred), Busy)


class PatientWriter(_Writer):
    """Decides what others have locked, and what needs many overdue holds to be expired.

    It tries all items as the brief writer does. Then it waits for one of those that are left, for a short time, and
    does all that its requests need. So no item is locked while another one is waited for, and few while it takes long.
    """

    def __init__(self, commits: Commits, answer: Answer) -> None:
        super().__init__("patient", commits, answer)
        self.queue = WaitingQueue()
        self._waited_at: dict[Name, float] = {}
        self._rests_until = 0.0

    def _run(self) -> None:
        while members := self.queue.take_from_each_item(LARGEST_SET):
            undecided = self._isolate(members)
            if undecided and time.monotonic() >= self._rests_until:
                undecided = self._wait_for_one(undecided)
            # In the queue, they are answered busy when their time has passed.
            self.queue.put_back(undecided)
            if undecided:
                time.sleep(TRY_SECONDS)

    def _wait_for_one(self, members: Sequence[Member]) -> Sequence[Member]:
        """Wait for the item that was waited for the longest ago. Return the members that are still undecided."""
        began = time.monotonic()
        wanted = {item for member in members for item in member.waits_for}
        item = min(wanted, key=lambda item: self._waited_at.get(item, 0.0))
        self._waited_at = {one: at for one, at in self._waited_at.items() if one in wanted} | {item: began}
        of_item = [member for member in members if item in member.waits_for]
        others = [member for member in members if item not in member.waits_for]
        undecided = self._isolate(of_item, item)
        ended = time.monotonic()
        self._rests_until = ended + REST_FACTOR * (ended - began)
        return [*others, *undecided]
