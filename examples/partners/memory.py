"""A limit on what the partners remember, so that a demo can run for days."""

from collections import OrderedDict
from typing import TypeVar

#: More than a demo or a fault test sends. An entry takes well under 1 kB.
REMEMBERED = 100_000

K = TypeVar("K")
V = TypeVar("V")


def remember(memory: OrderedDict[K, V], key: K, value: V) -> int:
    """Store the value. Return how many of the oldest entries were dropped to make room."""
    memory[key] = value
    if len(memory) <= REMEMBERED:
        return 0
    memory.popitem(last=False)
    return 1
