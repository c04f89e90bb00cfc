"""Waiting until a booking is settled: `Prefer: wait=10` on a request for one.

Source: RFC 7240 §4.3. Whoever prefers to wait is answered when the booking has left PENDING, or after that time.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import suppress
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from api.bulkheads import Bulkhead
from api.http.headers import header_of
from domain.reservations.lifecycle import Status
from domain.reservations.table import reservations, status_by_now
from domain.runtime.database import is_given
from domain.runtime.errors import Unavailable

#: Nobody waits for longer, in seconds.
LONGEST = 30

#: How often it is looked which bookings are settled, by one query for all who wait.
LOOK_SECONDS = 0.05

#: So many requests may wait in a process, and so many of them for one client. Others are answered at once.
MOST, MOST_OF_CLIENT = 1_000, 100

_WAIT = re.compile(r"\s*wait\s*=\s*\"?(\d{1,9})\"?\s*", re.IGNORECASE)


def wait_of(scope: Mapping[str, Any]) -> int:
    """Return for how many seconds the sender prefers to wait. A preference that can't be read is none."""
    written = header_of(scope, "Prefer") or ""
    found = next((match for part in written.split(",") if (match := _WAIT.fullmatch(part))), None)
    return min(int(found[1]), LONGEST) if found else 0


class Waiting:
    """Those who wait for bookings of this process. It belongs to one event loop."""

    def __init__(self, reads: Bulkhead) -> None:
        self._reads = reads
        #: What each request waits for, by the event that ends its waiting.
        self._waiting: dict[asyncio.Event, UUID] = {}
        self._by_client: Counter[str] = Counter()
        self._looking: asyncio.Task[None] | None = None

    async def wait(self, reservation_id: UUID, seconds: float, client_id: str) -> bool:
        """Wait until a booking has left PENDING, for so long at most. Return False if too many wait already."""
        if len(self._waiting) >= MOST or self._by_client[client_id] >= MOST_OF_CLIENT:
            return False
        settled = asyncio.Event()
        self._waiting[settled] = reservation_id
        self._by_client[client_id] += 1
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await settled.wait()
        finally:
            del self._waiting[settled]
            self._by_client -= Counter([client_id])
        return True

    async def _look(self) -> None:
        while self._waiting:
            await asyncio.sleep(LOOK_SECONDS)
            # Who waits is answered in time all the same, with what is known then.
            with suppress(Unavailable, SQLAlchemyError):
                found = await self._reads.run(partial(_settled, ids={*self._waiting.values()}))
                for settled in [event for event, waited_for in self._waiting.items() if waited_for in found]:
                    settled.set()


def _settled(session: Session, ids: Collection[UUID]) -> Collection[UUID]:
    return set(session.execute(_SETTLED, {"ids": list(ids)}).scalars())


_SETTLED = select(reservations.c.id).where(is_given(reservations.c.id), status_by_now != Status.PENDING)
