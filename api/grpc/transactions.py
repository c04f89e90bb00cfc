"""Transactions for threads that wait: the group commit and the bulkheads, on an event loop in a thread of its own.

They are the same as those of the HTTP API, so clients take turns here by the same rules.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

from sqlalchemy.orm import Session

from api import readiness
from api.bulkheads import BULKHEADS, Bulkhead, recording_engines
from api.doorbell import Doorbell
from api.explanations import add_explanation
from api.group_commit import GroupCommit
from api.group_commit.writers import connect_writers
from domain.access import Principal
from domain.idempotency import Answered
from domain.outbox import Routes
from domain.outbox.operations.routes_check import RoutesCheck
from domain.reservations import Reserve, reserve
from domain.runtime.errors import NotFree
from domain.runtime.settings import Settings

T = TypeVar("T")

#: The kinds of requests that there are here.
KINDS = ("reads", "changes", "item_changes", "explanations", "probes")


class Transactions:
    """Decides what calls ask for. Futures are cancelled by callers who no longer want the answer."""

    def __init__(self, settings: Settings, routes: Routes, check: RoutesCheck | None = None) -> None:
        self._doorbell = Doorbell(settings.broker())
        self._writer_dbs = connect_writers(settings)
        self._group_commit = GroupCommit(
            *self._writer_dbs,
            partial(reserve, routes=routes),
            queue_limit=settings.queue_limit,
            committed=self._doorbell.wake,
        )
        self._bulkheads = {
            kind: Bulkhead(kind, settings, BULKHEADS[kind], committed=self._doorbell.wake) for kind in KINDS
        }
        if check:
            check.guard(recording_engines(self._writer_dbs, self._bulkheads))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="transactions", daemon=True)

    def start(self) -> None:
        """Begin to decide requests."""
        self._doorbell.start()
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()

    async def _start(self) -> None:
        self._group_commit.start()

    def reserve(self, wanted: Reserve) -> Future[Answered]:
        """Have a reservation made by the next set of the group commit. Any thread may call it."""
        return self._group_commit.submit_from_thread(wanted)

    def run(self, kind: str, act: Callable[[Session], T], principal: Principal) -> Future[T]:
        """Have `act` called in a transaction of that kind. Any thread may call it."""
        return asyncio.run_coroutine_threadsafe(self._bulkheads[kind].run(act, principal), self._loop)

    def explain(self, refused: NotFree, principal: Principal) -> Future[NotFree]:
        """Have a refusal explained, unless too many others are. Any thread may call it."""
        return asyncio.run_coroutine_threadsafe(self._explain(refused, principal), self._loop)

    async def _explain(self, refused: NotFree, principal: Principal) -> NotFree:
        await add_explanation(refused, self._bulkheads["explanations"], principal)
        return refused

    def health_of_database(self) -> str:
        """Return `readiness.OK`, or what is wrong with the database."""
        checking = readiness.of_database(self._group_commit, self._bulkheads["probes"])
        return asyncio.run_coroutine_threadsafe(checking, self._loop).result()

    def close(self) -> None:
        """Decide what is queued, then stop."""
        asyncio.run_coroutine_threadsafe(self._group_commit.close(), self._loop).result()
        for bulkhead in self._bulkheads.values():
            bulkhead.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._doorbell.close()
        for db in self._writer_dbs:
            db.kw["bind"].dispose()
