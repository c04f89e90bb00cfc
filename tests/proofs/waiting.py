"""Waiting until a condition holds, and never for a fixed time."""

import time
from collections.abc import Callable
from typing import TypeVar

#: How often a condition is checked.
CHECK_EVERY_SECONDS = 0.02

#: A condition that does not hold by then on this machine never will.
PATIENCE_SECONDS = 60.0

T = TypeVar("T")


def wait_until(what: str, holds: Callable[[], T], *, within: float = PATIENCE_SECONDS) -> T:
    """Return what `holds` returns as soon as it is true. Fails after `within` seconds, naming the condition `what`."""
    deadline = time.monotonic() + within
    while not (found := holds()):
        assert time.monotonic() < deadline, f"Not within {within:.1f} s: {what}."
        time.sleep(CHECK_EVERY_SECONDS)
    return found
