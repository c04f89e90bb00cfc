"""Threads that work in rounds and must never end: an error in one round is logged, and the next round comes."""

from collections.abc import Callable

import structlog

log = structlog.get_logger()


def isolate_round(act: Callable[[], None], *, thread: str, advice: str) -> None:
    """Do one round of a thread.

    Nobody waits for such a thread, so nobody would notice its end. That is why every exception is caught here, also
    one that nobody has foreseen.
    """
    try:
        act()
    except Exception:
        log.exception("thread.round_failed", thread=thread, advice=advice)
