"""Waiting for what must come true, and for no time that merely passes."""

import time
from collections.abc import Callable
from typing import TypeVar

#: How often a condition is looked at.
LOOK_EVERY_SECONDS = 0.02

#: What is not true by then on this machine never will be.
PATIENCE_SECONDS = 60.0

T = TypeVar("T")


def wait_until(what: str, holds: Callable[[], T], *, within: float = PATIENCE_SECONDS) -> T:
    """Return what `holds` returns as soon as it is true. Fails after `within` seconds, saying `what` is not."""
    deadline = time.monotonic() + within
    while not (found := holds()):
        assert time.monotonic() < deadline, f"Not within {within:.1f} s: {what}."
        time.sleep(LOOK_EVERY_SECONDS)
    return found
