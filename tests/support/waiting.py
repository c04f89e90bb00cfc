"""Waiting until a condition holds, and never for a fixed time."""

import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

#: A condition that does not hold by then, on a machine however busy, never will.
PATIENCE_SECONDS = 60.0

#: How often a condition is checked.
CHECK_EVERY_SECONDS = 0.01

T = TypeVar("T")


def wait_until(what: str, holds: Callable[[], T | None], *, within: float = PATIENCE_SECONDS) -> T:
    """Return what `holds` returns as soon as it is true. Fails after `within` seconds, naming the condition `what`."""
    deadline = time.monotonic() + within
    while not (found := holds()):
        assert time.monotonic() < deadline, f"Not within {within:.1f} s: {what}."
        time.sleep(CHECK_EVERY_SECONDS)
    return found


def wait_until_blocked(db: sessionmaker[Session], connections: int = 1) -> None:
    """Wait until this many connections to this database, or more, wait for a lock."""
    blocked = text(
        "SELECT count(*) >= :connections FROM pg_stat_activity"
        " WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )

    def are_blocked() -> bool:
        with db.begin() as session:
            return bool(session.execute(blocked, {"connections": connections}).scalar_one())

    wait_until(f"{connections} wait for a lock", are_blocked)
