"""`log:` writes one line of JSON an event: to standard output, or to the file `log:/path`."""

import os
import stat
import threading
from collections.abc import Sequence
from threading import Event

from domain.outbox import DELIVERED, NOT_SENT, Outcome, Row, Unreachable
from domain.outbox.routes import Route
from domain.runtime.settings import Settings
from worker.formats import format_of
from worker.relay.ordered_batches import written
from worker.route_options import refuse

#: Standard output itself: a worker's `sys.stdout` belongs to Dramatiq's logging.
STANDARD_OUTPUT = 1


class Log:
    """A full disk is an outage: nothing is lost by it, and a line that it tore is written again whole.

    A file that was moved away, as log rotation does, is followed by a new one at the same path. What is
    said to be delivered is on the disk.
    """

    def __init__(self, route: Route, settings: Settings, stopping: Event) -> None:
        self._path = route.url.removeprefix("log:")
        self._format = format_of(route)
        self._lock = threading.Lock()
        self._is_torn = False
        try:
            self._file = self._open() if self._path else STANDARD_OUTPUT
        except OSError as error:
            refuse(route, f"it can't write to {self._path}: {error.strerror}")

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def deliver(self, rows: Sequence[Row]) -> Sequence[Outcome]:
        entries, outcomes = written(rows, lambda row: self._format(row).body)
        broken = {row.aggregate_id: row.id for row in reversed(rows) if row.id in outcomes}
        sent = [(row, line) for row, line in entries if row.id < broken.get(row.aggregate_id, row.id + 1)]
        answers = self._kept([line for _, line in sent])
        outcomes.update((row.id, answer) for (row, _), answer in zip(sent, answers, strict=True))
        return [outcomes.get(row.id, NOT_SENT) for row in rows]

    def _kept(self, lines: Sequence[str]) -> Sequence[Outcome]:
        """Write lines, and return of each whether it is on the disk."""
        with self._lock:
            appended, fault = self._append(lines)
            try:
                self._sync()
            except OSError as error:
                # What may not be on the disk goes out again: twice is better than never. And it is not asked
                # again, as a disk says once that it could not write, and Linux takes it for written from then on.
                appended, fault = 0, error
            down = Unreachable(f"can't write to the log: {fault.strerror}") if fault else NOT_SENT
            return [DELIVERED] * appended + [down] * (len(lines) - appended)

    def _append(self, lines: Sequence[str]) -> tuple[int, OSError | None]:
        """Return how many are written whole, and what kept it from the rest."""
        appended = 0
        try:
            self._follow()
            for line in lines:
                self._write(line)
                appended += 1
        except OSError as error:
            return appended, error
        return appended, None

    def _follow(self) -> None:
        """Open the file at the path again if it is another one by now."""
        if not self._path or _is_at(self._file, self._path):
            return
        moved, self._file = self._file, self._open()
        self._is_torn = False
        os.close(moved)

    def _write(self, line: str) -> None:
        """Write a line in one go, so that lines of several processes do not mix."""
        whole = ("\n" if self._is_torn else "") + line + "\n"
        left = whole.encode()
        while left:
            left = left[os.write(self._file, left) :]
            self._is_torn = bool(left)

    def _sync(self) -> None:
        if stat.S_ISREG(os.fstat(self._file).st_mode):
            os.fdatasync(self._file)

    def close(self) -> None:
        if self._file != STANDARD_OUTPUT:
            os.close(self._file)


def _is_at(file: int, path: str) -> bool:
    """Tell whether an open file is the one at that path."""
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False
