"""`log:` writes one line of JSON an event: to standard output, or to the file `log:/path`."""

import sys
import threading
from collections.abc import Sequence

from domain.outbox import Delivered, Outcome, Row, Unreachable
from domain.outbox.routes import Route
from domain.settings import refuse_to_start
from worker.envelope import wrap


class Log:
    """Lines of one batch stay together. A full disk is an outage: nothing is lost by it."""

    def __init__(self, route: Route) -> None:
        path = route.url.removeprefix("log:")
        try:
            self._file = open(path, "a", encoding="utf-8") if path else sys.stdout  # noqa: SIM115 - open as long as we are
        except OSError as error:
            refuse_to_start(f"HOLDFAST_ROUTES: destination {route.name!r} can't write to {path}: {error.strerror}.")
        self._lock = threading.Lock()

    def deliver(self, rows: Sequence[Row]) -> Sequence[Outcome]:
        lines = "".join(wrap(row) + "\n" for row in rows)
        try:
            with self._lock:
                self._file.write(lines)
                self._file.flush()
        except OSError as error:
            return [Unreachable(f"can't write: {error.strerror}")] * len(rows)
        return [Delivered()] * len(rows)

    def close(self) -> None:
        if self._file is not sys.stdout:
            self._file.close()
