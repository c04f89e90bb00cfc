"""A queue in which participants take turns."""

from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from itertools import chain
from typing import Generic, TypeVar

T = TypeVar("T")
P = TypeVar("P", bound=Hashable)


def who_makes_room(counts: Mapping[P, int], newcomer: P) -> P | None:
    """Return the participant that has the most, if that is more than the newcomer would have. Some must have any."""
    largest = max(counts, key=counts.__getitem__)
    return largest if counts[largest] > counts.get(newcomer, 0) + 1 else None


class FairQueue(Generic[T]):
    """What waits, in order of arrival for each participant.

    The participants take turns. So a participant that puts in a thousand delays the others by its turn, and not by
    the thousand.
    """

    def __init__(self) -> None:
        # In order of their next turn. None is empty.
        self._queues: OrderedDict[Hashable, deque[T]] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def participants(self) -> Collection[Hashable]:
        """Those that have something in the queue, in order of their turns."""
        return self._queues.keys()

    def __iter__(self) -> Iterator[T]:
        return chain.from_iterable(self._queues.values())

    def put(self, participant: Hashable, item: T) -> None:
        """Add an item after all others of its participant."""
        self._queue_of(participant).append(item)
        self._size += 1

    def put_first(self, participant: Hashable, item: T) -> None:
        """Add an item before all others of its participant."""
        self._queue_of(participant).appendleft(item)
        self._size += 1

    def pop(self) -> T:
        """Take out the first item of the participant whose turn it is. Raises KeyError if the queue is empty."""
        return self.pop_of(next(iter(self._queues), None))

    def pop_of(self, participant: Hashable) -> T:
        """Take out the first item of a participant, whose next turn comes after all others'. Raises KeyError."""
        queue = self._queues[participant]
        item = queue.popleft()
        self._size -= 1
        if queue:
            self._queues.move_to_end(participant)
        else:
            del self._queues[participant]
        return item

    def make_room_for(self, participant: Hashable) -> T | None:
        """Take out the last item of the participant that has the most, if that has more than this one would have."""
        if self._size == len(self._queues):
            return None  # Each has one. To search them all for that would cost more than all else of a refusal.
        largest = who_makes_room({one: len(queue) for one, queue in self._queues.items()}, participant)
        if largest is None:
            return None
        self._size -= 1
        return self._queues[largest].pop()

    def take_out(self, is_unwanted: Callable[[T], bool]) -> list[T]:
        """Take out every item of which this holds."""
        unwanted = [item for item in self if is_unwanted(item)]
        if unwanted:
            for participant, queue in list(self._queues.items()):
                kept = deque(item for item in queue if not is_unwanted(item))
                self._queues[participant] = kept
                if not kept:
                    del self._queues[participant]
            self._size -= len(unwanted)
        return unwanted

    def _queue_of(self, participant: Hashable) -> deque[T]:
        return self._queues.setdefault(participant, deque())
