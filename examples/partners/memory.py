"""What the partners remember: the newest, and no more of it than fits."""

from collections import OrderedDict
from typing import TypeVar

#: More than a demo or a fault test sends; at well under 1 kB each, no burden to a laptop.
REMEMBERED = 100_000

K = TypeVar("K")
V = TypeVar("V")


def remember(memory: OrderedDict[K, V], key: K, value: V) -> int:
    """Add it as the newest. Return how many of the oldest were forgotten for it."""
    memory[key] = value
    memory.move_to_end(key)
    if len(memory) <= REMEMBERED:
        return 0
    memory.popitem(last=False)
    return 1
