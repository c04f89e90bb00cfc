"""The requests that wait for a writer."""

import asyncio
import concurrent.futures
import threading
import time
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from api.fair_queue import FairQueue
from domain.access import ANONYMOUS
from domain.idempotency import Answered
from domain.reservations import Reserve

#: What one participant may have of a set, if others wanted something within the last second: they wait for all of a
#: set, and then for all of its answers to be sent.
LARGEST_SHARE = 64
SHARED_SECONDS = 1.0

#: The requests for one item that may wait for its lock.
MOST_FOR_AN_ITEM = 128

#: The requests that may wait for the locks of items in all.
MOST_FOR_ITEMS = 1_024


@dataclass(slots=True, eq=False)
class Member:
    """A request, the future of its answer, and the time at which it is answered busy if it still waits.

    `waits_for` are those of its items for which it was deferred.
    """

    request: Reserve
    future: "asyncio.Future[Answered] | concurrent.futures.Future[Answered]"
    deadline: float
    is_background: bool = False
    races: int = 0
    waits_for: tuple[int | str, ...] = ()

    @property
    def participant(self) -> Hashable:
        """With whom it shares its turns: its client, or those who want the same item if no client is named."""
        request = self.request
        return request.client_id if request.client_id != ANONYMOUS.client_id else request.lines[0].item


class Queue:
    """Members, of which participants take turns, those in the background after all others. Any thread may use it."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._urgent: FairQueue[Member] = FairQueue()
        self._background: FairQueue[Member] = FairQueue()
        self._is_closed = False
        self._shared_until = 0.0

    def __len__(self) -> int:
        return len(self._urgent) + len(self._background)

    def put(self, member: Member, *, most: int) -> Member | None:
        """Add a member. If there are `most` of its kind already, return the one that there is no place for."""
        with self._changed:
            members = self._members_like(member)
            is_full = len(members) >= most
            refused = members.make_room_for(member.participant) if is_full else None
            if is_full and refused is None:
                return member
            members.put(member.participant, member)
            self._changed.notify()
            return refused

    def _members_like(self, member: Member) -> FairQueue[Member]:
        return self._background if member.is_background else self._urgent

    def take(self, most: int) -> Sequence[Member]:
        """Wait for members, and return up to that many. Return none when the queue is closed and empty."""
        with self._changed:
            self._wait()
            if len(self._urgent.participants) > 1:
                self._shared_until = time.monotonic() + SHARED_SECONDS
            return self._pop(most, LARGEST_SHARE if time.monotonic() < self._shared_until else most)

    def _wait(self) -> None:
        self._changed.wait_for(lambda: len(self) or self._is_closed)

    def _pop(self, most: int, share: int) -> list[Member]:
        taken = _pop(self._urgent, most, share)
        return taken + _pop(self._background, most - len(taken), share)

    def take_overdue(self, now: float) -> Sequence[Member]:
        """Return the members whose deadline has passed, without waiting."""
        with self._changed:
            kinds = self._urgent, self._background
            return [*chain(*(members.take_out(lambda member: member.deadline <= now) for members in kinds))]

    def close(self) -> None:
        """Let `take` return what is queued, and then none."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()


def _pop(members: FairQueue[Member], most: int, share: int) -> list[Member]:
    """Take members in turns, until there are enough, or one participant has its share."""
    taken: list[Member] = []
    shares: Counter[Hashable] = Counter()
    while members and len(taken) < most:
        member = members.pop()
        taken.append(member)
        shares[member.participant] += 1
        if shares[member.participant] == share:
            break
    return taken


class WaitingQueue(Queue):
    """The members whose items are locked. The number for each item has a limit, so that none takes all places."""

    def admit(self, members: Sequence[Member]) -> Sequence[Member]:
        """Add members, and return those for whom there is no place.

        A basket that waits for several items takes a place of the one that the most wait for. The others may be locked
        for a moment only, and their places are left to those who want nothing else.
        """
        with self._changed:
            everybody = chain(self._urgent, self._background)
            waiting = Counter(item for member in everybody for item in member.waits_for)
            refused = []
            for member in members:
                crowded = max(member.waits_for, key=waiting.__getitem__)
                if waiting[crowded] < MOST_FOR_AN_ITEM and len(self) < MOST_FOR_ITEMS:
                    waiting[crowded] += 1
                    member.waits_for = (crowded,)
                    self._members_like(member).put(member.participant, member)
                else:
                    refused.append(member)
            self._changed.notify()
            return refused

    def put_back(self, members: Iterable[Member]) -> None:
        """Add members that were taken, and could not be decided, before all others of their participants."""
        with self._changed:
            for member in reversed([*members]):
                self._members_like(member).put_first(member.participant, member)

    def take_from_each_item(self, most: int) -> Sequence[Member]:
        """Wait for members, and return up to that many, equally many of each item if there are so many.

        A basket counts for the first item that it waits for.
        """
        with self._changed:
            self._wait()
            members = self._pop(MOST_FOR_ITEMS, MOST_FOR_ITEMS)
        seen: Counter[int | str] = Counter()
        ranks = {}
        for member in members:
            ranks[member] = seen[member.waits_for[0]]
            seen[member.waits_for[0]] += 1
        ordered = sorted(members, key=ranks.__getitem__)
        self.put_back(ordered[most:])
        return ordered[:most]
