"""`log:` writes each event as one line of JSON: to standard output, or to the file of `log:/path`."""

import os
import stat
import threading
from collections.abc import Sequence

from domain.outbox import DELIVERED, NOT_SENT, Outcome, Route, Row, Unreachable
from domain.runtime.settings import Settings
from worker.formats import format_of
from worker.ordering.ordered_batches import encode
from worker.ordering.pace import Pace
from worker.route_options import wrong_route

#: The file descriptor of standard output. `sys.stdout` can't be used: in a worker it belongs to Dramatiq's logging.
STANDARD_OUTPUT = 1


class Log:
    """A line counts as delivered once it is on the disk.

    A full disk, or a path that can't be opened, is an outage: no event is lost, and a line of which only a part was
    written is written again whole. Several processes may write to the same file, and each of them may leave half a line
    at its end. When the file has been moved away, as log rotation does, a new one is opened at the same path.
    """

    def __init__(self, route: Route, settings: Settings, pace: Pace) -> None:
        self._path = route.url.removeprefix("log:")
        if self._path.startswith("//"):
            raise wrong_route(route, "its URL has no host. Write log:/path/to/file, or log: for the standard output")
        self._format = format_of(route)
        self._lock = threading.Lock()
        #: Whether this process has left half a line at the end of what can't be read, such as a pipe.
        self._is_torn = False
        self._can_be_read = False
        #: Opened when there is something to write: a path that can't be opened keeps no other destination waiting.
        self._file: int | None = None if self._path else STANDARD_OUTPUT

    def deliver(self, rows: Sequence[Row]) -> Sequence[Outcome]:
        entries, outcomes = encode(rows, lambda row: self._format(row).body)
        # The first row of each aggregate that can't be written. Later rows of that aggregate must not overtake it.
        broken = {row.aggregate_id: row.id for row in reversed(rows) if row.id in outcomes}
        sent = [(row, line) for row, line in entries if row.id < broken.get(row.aggregate_id, row.id + 1)]
        kept = self._keep([line for _, line in sent])
        outcomes.update((row.id, outcome) for (row, _), outcome in zip(sent, kept, strict=True))
        return [outcomes.get(row.id, NOT_SENT) for row in rows]

    def _keep(self, lines: Sequence[str]) -> Sequence[Outcome]:
        """Write lines, and return for each whether it is on the disk."""
        with self._lock:
            appended, fault = self._append(lines)
            try:
                self._sync()
            except OSError as error:
                # Any of the lines may be missing from the disk, so all of them are sent again: twice is better than
                # never. Syncing again would prove nothing, as Linux reports a failed write only once and then takes
                # it for written.
                appended, fault = 0, error
            rest = Unreachable(f"can't write to the log: {fault.strerror}") if fault else NOT_SENT
            return [DELIVERED] * appended + [rest] * (len(lines) - appended)

    def _append(self, lines: Sequence[str]) -> tuple[int, OSError | None]:
        """Return how many lines were written whole, and the error that kept the others from being written."""
        appended = 0
        try:
            self._open_if_moved()
            for line in lines:
                self._write(line)
                appended += 1
        except OSError as error:
            return appended, error
        return appended, None

    def _open_if_moved(self) -> None:
        """Open the path if none is open yet, or if another file, or none, is there by now."""
        if not self._path or (self._file is not None and _is_at(self._file, self._path)):
            return
        former, self._file = self._file, _open(self._path)
        self._is_torn = False
        self._can_be_read = stat.S_ISREG(os.fstat(self._file).st_mode)
        if former is not None:
            os.close(former)

    def _write(self, line: str) -> None:
        """Write a line in one call, so that the lines of several processes do not mix, until it stands alone."""
        assert self._file is not None
        whole = line.encode() + b"\n"
        is_alone = False
        while not is_alone:
            sent = b"\n" + whole if self._is_torn else whole
            is_whole = os.write(self._file, sent) == len(sent)
            self._is_torn = not (is_whole or self._can_be_read)
            is_alone = is_whole and self._begins_a_line(self._file, len(whole))

    def _begins_a_line(self, file: int, length: int) -> bool:
        """Return whether the bytes that were just written begin a line, and do not follow half of another one.

        Any process may have left that half, and died. Before the writing nobody can tell: what looks like half a line
        may be what another process is just writing.
        """
        if not self._can_be_read:
            return True
        start = os.lseek(file, 0, os.SEEK_CUR) - length
        return start == 0 or os.pread(file, 1, start - 1) == b"\n"

    def _sync(self) -> None:
        if self._file is not None and stat.S_ISREG(os.fstat(self._file).st_mode):
            os.fdatasync(self._file)

    def close(self) -> None:
        if self._file is not None and self._file != STANDARD_OUTPUT:
            os.close(self._file)


def _open(path: str) -> int:
    """Open a path to append to it. A pipe that nobody reads is an error: it would block."""
    is_pipe = os.path.exists(path) and stat.S_ISFIFO(os.stat(path).st_mode)
    access = os.O_WRONLY | os.O_NONBLOCK if is_pipe else os.O_RDWR
    return os.open(path, access | os.O_CREAT | os.O_APPEND, 0o644)


def _is_at(file: int, path: str) -> bool:
    """Return whether an open file is the one at that path."""
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False
