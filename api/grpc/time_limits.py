"""Time limits of what clients do: send their message, and read what is streamed to them.

The library would wait for either for ever, and keep a thread meanwhile.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

#: How often calls that are late are looked for.
LOOK_SECONDS = 0.1


class TimeLimit:
    """Cancels the calls of clients that take longer than `seconds` for a step."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._began: dict[grpc.ServicerContext, float] = {}  # the earliest first
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="time-limit", daemon=True)

    def start(self) -> None:
        """Begin to look for calls that are late."""
        self._thread.start()

    def close(self) -> None:
        """Stop looking."""
        self._closed.set()
        self._thread.join()

    @contextmanager
    def step(self, context: grpc.ServicerContext) -> Iterator[None]:
        """Cancel the call if the block takes too long."""
        with self._lock:
            self._began[context] = time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                self._began.pop(context, None)

    def _run(self) -> None:
        while not self._closed.wait(LOOK_SECONDS):
            while (late := self._take_late()) is not None:
                late.cancel()

    def _take_late(self) -> grpc.ServicerContext | None:
        with self._lock:
            earliest, began = next(iter(self._began.items()), (None, 0.0))
            if earliest is None or time.monotonic() < began + self._seconds:
                return None
            del self._began[earliest]
            return earliest
