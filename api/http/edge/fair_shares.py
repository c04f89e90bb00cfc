"""Fair shares: while somebody asks for little, who asks for much has few requests in progress at a time.

All requests of a process share its event loop, its writer and one processor. So a client with hundreds of connections
would delay everybody else by all that it has in progress, however fair each queue is. Its further requests wait here,
before anything of them is read. While nobody else is there, or all ask for much, nobody waits.
"""

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from api.http import problems
from api.http.asgi import Application, Receive, Scope, Send
from api.http.edge.exchanges import refuse
from domain.access import ANONYMOUS
from domain.runtime.errors import Busy
from domain.runtime.metrics import Gauge

#: The requests that a sender has in progress at a time while others ask for little. With so many it makes about 800
#: reservations a second, and delays the others by less than a commit takes.
MOST_IN_PROGRESS = 4

#: A sender that wanted more than that within this time, in seconds, asks for much. So long is somebody who asks for
#: little taken to be there after a request.
REMEMBERED_SECONDS = 1.0

#: A request that has been in progress for this time waits for something other than the processor, such as a lock or
#: the next event of a stream. It counts no longer.
COUNTED_SECONDS = 0.05

#: The requests of a sender that may wait, and for how long, in seconds. Others are answered 503.
MOST_WAITING = 2_048
WAIT_SECONDS = 5.0

#: The senders that are remembered without a request in progress, before those are forgotten that ask for little.
MOST_REMEMBERED = 4_096

WAITING = Gauge(
    "holdfast_requests_waiting_for_their_share",
    "Requests of clients that ask for much, which wait while others ask for little.",
    multiprocess_mode="livesum",
)


class Place:
    """That a request of a sender is in progress."""

    __slots__ = ("began", "sender")

    def __init__(self, sender: "_Sender") -> None:
        self.sender = sender
        self.began = time.monotonic()


class _Sender:
    """The requests of a sender: those in progress that count, the earliest first, and those that wait."""

    __slots__ = ("greedy_until", "in_progress", "is_looked_after", "waiting")

    def __init__(self) -> None:
        self.in_progress: dict[Place, None] = {}
        self.waiting: deque[tuple[float, asyncio.Future[Place]]] = deque()
        self.greedy_until = 0.0
        self.is_looked_after = False


class FairShares:
    """An ASGI application that calls another one, with each request when its sender may have one more in progress."""

    def __init__(self, app: Application) -> None:
        self._app = app
        self._shares = Shares()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application, unless too many requests of this sender wait."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            place = self._shares.enter(_sender_of(scope))
            if isinstance(place, asyncio.Future):
                place = await place
        except Busy as error:
            await refuse(problems.body_of(error), send)
            return
        try:
            await self._app(scope, receive, send)
        finally:
            self._shares.leave(place)


def _sender_of(scope: Mapping[str, Any]) -> str:
    """Return who has sent a request: its principal, whomever that acts for, or an address.

    With AUTH=none everybody is the same principal, so there the client counts that a request names, if it names one.
    """
    principal = scope["principal"]
    if principal.name != ANONYMOUS.client_id:
        return str(principal.name)
    return str(principal.client_id if principal.actor else scope["sender_address"])


class Shares:
    """Who may have a request in progress. It belongs to one event loop."""

    def __init__(self) -> None:
        self._senders: dict[str, _Sender] = {}
        self._greedy_until = 0.0
        self._shared_until = 0.0

    def enter(self, name: str) -> Place | asyncio.Future[Place]:
        """Return the place of a request of a sender, or the future of one. Either raises Busy."""
        sender = self._senders.get(name)
        if sender is None:
            sender = self._add(name)
        now = time.monotonic()
        if len(sender.in_progress) >= MOST_IN_PROGRESS:
            sender.greedy_until = self._greedy_until = now + REMEMBERED_SECONDS
            if sender.waiting or now < self._shared_until:
                return self._wait(sender, now)
        elif now < self._greedy_until and sender.greedy_until < now:
            self._shared_until = now + REMEMBERED_SECONDS
        return self._begin(sender)

    def leave(self, place: Place) -> None:
        """Give a place back."""
        sender = place.sender
        sender.in_progress.pop(place, None)
        if sender.waiting:
            self._hand_out(sender, time.monotonic())

    def _add(self, name: str) -> _Sender:
        if len(self._senders) >= MOST_REMEMBERED:
            now = time.monotonic()
            self._senders = {
                one: sender
                for one, sender in self._senders.items()
                if sender.in_progress or sender.waiting or sender.greedy_until > now
            }
        sender = self._senders[name] = _Sender()
        return sender

    @staticmethod
    def _begin(sender: _Sender) -> Place:
        place = Place(sender)
        sender.in_progress[place] = None
        return place

    def _wait(self, sender: _Sender, now: float) -> asyncio.Future[Place]:
        if len(sender.waiting) >= MOST_WAITING:
            raise Busy
        comes: asyncio.Future[Place] = asyncio.get_running_loop().create_future()
        sender.waiting.append((now + WAIT_SECONDS, comes))
        WAITING.inc()
        if not sender.is_looked_after:
            self._look_later(sender)
        return comes

    def _hand_out(self, sender: _Sender, now: float) -> None:
        """Give a sender the places that it may have."""
        while sender.waiting and (len(sender.in_progress) < MOST_IN_PROGRESS or now >= self._shared_until):
            deadline, comes = sender.waiting.popleft()
            WAITING.dec()
            if comes.done():
                continue  # its client has gone
            if deadline <= now:
                comes.set_exception(Busy())
            else:
                comes.set_result(self._begin(sender))

    def _look_later(self, sender: _Sender) -> None:
        sender.is_looked_after = True
        asyncio.get_running_loop().call_later(COUNTED_SECONDS, self._look_after, sender)

    def _look_after(self, sender: _Sender) -> None:
        """Count no longer what has been in progress for long, as long as something waits for that."""
        now = time.monotonic()
        for place in [*sender.in_progress]:
            if place.began > now - COUNTED_SECONDS:
                break
            del sender.in_progress[place]
        self._hand_out(sender, now)
        sender.is_looked_after = False
        if sender.waiting:
            self._look_later(sender)
