"""Receiving the messages of calls, each within a time limit.

A call begins with its headers, and its message may never come. The thread that waits for it would wait for ever.
"""

import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc

#: How often calls whose message is late are looked for.
LOOK_SECONDS = 0.1


class Receiver:
    """Waits for messages for at most `seconds` each, and for `most` at a time.

    Calls whose message is late are cancelled. If there are more calls than `most`, the one that has waited the longest
    is: so however many calls without messages there are, one that sends its message at once is served.
    """

    def __init__(self, *, seconds: float, most: int) -> None:
        self._seconds = seconds
        self._most = most
        self._lock = threading.Lock()
        self._waiting: dict[grpc.ServicerContext, float] = {}  # the longest first
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="receiver", daemon=True)

    def start(self) -> None:
        """Begin to look for calls whose message is late."""
        self._thread.start()

    def next(self, messages: Iterator[Any], context: grpc.ServicerContext) -> Any:
        """Return the next message of a call, or None if there is none. Raises grpc.RpcError if the call has ended."""
        with self._lock:
            self._waiting[context] = time.monotonic()
            crowded_out = self._oldest() if len(self._waiting) > self._most else None
        if crowded_out is not None:
            crowded_out.cancel()
        try:
            return next(messages, None)
        finally:
            with self._lock:
                self._waiting.pop(context, None)

    def close(self) -> None:
        """Stop looking."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(LOOK_SECONDS):
            while (late := self._take_late()) is not None:
                late.cancel()

    def _take_late(self) -> grpc.ServicerContext | None:
        with self._lock:
            since = next(iter(self._waiting.values()), None)
            return self._oldest() if since is not None and since + self._seconds <= time.monotonic() else None

    def _oldest(self) -> grpc.ServicerContext:
        oldest = next(iter(self._waiting))
        del self._waiting[oldest]
        return oldest
