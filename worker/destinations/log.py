"""`log:` writes one line of JSON an event: to standard output, or to the file `log:/path`."""

import os
import threading
from collections.abc import Sequence
from threading import Event

from domain.outbox import Delivered, Outcome, Row, Unreachable
from domain.outbox.routes import Route
from domain.settings import Settings, refuse_to_start
from worker.formats import format_of

#: Standard output itself: a worker's `sys.stdout` belongs to Dramatiq's logging.
STANDARD_OUTPUT = 1


class Log:
    """A full disk is an outage: nothing is lost by it, and a line that it tore is written again whole."""

    def __init__(self, route: Route, settings: Settings, stopping: Event) -> None:
        path = route.url.removeprefix("log:")
        self._format = format_of(route)
        self._lock = threading.Lock()
        self._is_torn = False
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644) if path else STANDARD_OUTPUT
        except OSError as error:
            refuse_to_start(f"HOLDFAST_ROUTES: destination {route.name!r} can't write to {path}: {error.strerror}.")

    def deliver(self, rows: Sequence[Row]) -> Sequence[Outcome]:
        with self._lock:
            outcomes: list[Outcome] = []
            for row in rows:
                try:
                    self._write(self._format(row).body)
                except OSError as error:
                    down = Unreachable(f"can't write to the log: {error.strerror}")
                    return outcomes + [down] * (len(rows) - len(outcomes))
                outcomes.append(Delivered())
            return outcomes

    def _write(self, line: str) -> None:
        """Write a line in one go, so that lines of several processes do not mix."""
        whole = ("\n" if self._is_torn else "") + line + "\n"
        left = whole.encode()
        while left:
            left = left[os.write(self._file, left) :]
            self._is_torn = bool(left)

    def close(self) -> None:
        if self._file != STANDARD_OUTPUT:
            os.close(self._file)
