"""A group commit within the process of the test, on a real PostgreSQL."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from sqlalchemy.orm import Session

from api.group_commit import GroupCommit
from api.group_commit.writers import Outcome
from domain.idempotency import Answered
from domain.reservations import Effort, Reserve, reserve
from domain.runtime import database
from domain.runtime.settings import Settings
from tests.support.builders import ROUTES
from tests.support.waiting import wait_until

#: A connection that hangs is cut off after this time.
COMMIT_SECONDS = 1.0


@dataclass
class Sets:
    """Decides sets as the product does, and notes how many requests each set has.

    `before` is called in each transaction, with the number of the set. While `gate` is closed, the first set waits.
    """

    before: Callable[[Session, int], None] = lambda _session, _number: None
    gate: threading.Event = field(default_factory=threading.Event)
    sizes: list[int] = field(default_factory=list)

    def __call__(self, session: Session, requests: Sequence[Reserve], /, *, effort: Effort) -> Sequence[Outcome]:
        self.sizes.append(len(requests))
        if len(self.sizes) == 1:
            assert self.gate.wait(10), "the gate was never opened"
        self.before(session, len(self.sizes) - 1)
        return reserve(session, requests, ROUTES, effort=effort)


@asynccontextmanager
async def a_group_commit(settings: Settings, sets: Sets, queue_limit: int = 2_048) -> AsyncIterator[GroupCommit]:
    """Run a group commit until the block ends."""
    brief, patient = (
        database.connect(settings, connections=1, checked=False, transaction_seconds=COMMIT_SECONDS) for _ in range(2)
    )
    commits = GroupCommit(
        database.sessions(brief), database.sessions(patient), sets, queue_limit=queue_limit, committed=lambda: None
    )
    commits.start()
    try:
        yield commits
    finally:
        sets.gate.set()
        await commits.close()
        brief.dispose()
        patient.dispose()


def decide(settings: Settings, sets: Sets, first: Reserve, *requests: Reserve) -> Sequence[Answered | BaseException]:
    """Submit one request, and all others as the next set. Return the outcomes of these."""

    async def submit() -> Sequence[Answered | BaseException]:
        async with a_group_commit(settings, sets) as commits:
            alone = commits.submit(first)
            await asyncio.to_thread(wait_until, "the first set is decided", lambda: sets.sizes)
            others = [commits.submit(one) for one in requests]
            sets.gate.set()
            await alone
            return await asyncio.gather(*others, return_exceptions=True)

    return asyncio.run(submit())
