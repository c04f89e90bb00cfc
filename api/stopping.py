"""Stopping: what has to happen before the server waits for its connections to end."""

import asyncio
import faulthandler
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

#: The signals by which the server stops.
SIGNALS = (signal.SIGTERM, signal.SIGINT)

#: A process that has not ended by then writes to the log what each of its threads is doing. Soon it is killed.
TELL_AFTER_SECONDS = 7


@contextmanager
def before_stopping(act: Callable[[], None]) -> Iterator[None]:
    """Call `act` on the event loop when a signal stops this process.

    The server ends the lifespan of the application only when all its connections have ended, and a stream does not end
    by itself. The server's own handlers of these signals are called as well. If this process does not end, the log says
    where it hangs.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # not in a process of the server: signals go elsewhere
        return
    loop = asyncio.get_running_loop()
    handlers: dict[int, Any] = {number: signal.getsignal(number) for number in SIGNALS}

    def stop(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(act)
        if sys.__stderr__:
            faulthandler.dump_traceback_later(TELL_AFTER_SECONDS, file=sys.__stderr__)
        if callable(handlers[number]):
            handlers[number](number, frame)

    for number in handlers:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
