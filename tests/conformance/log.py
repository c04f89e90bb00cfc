"""The harness of `log:`: a named pipe. Its reader may leave and come back."""

import fcntl
import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from tests.conformance.harness import Harness, Trouble

#: More than any test writes, so that no writer waits for the reader.
PIPE_BYTES = 2**20

NO_ANSWER = "the reader of a pipe does not answer: the kernel took a line or did not"
TAKES_ALL = "a pipe takes every line"


class LogHarness(Harness):
    scheme = "log"
    impossible: ClassVar = {
        Trouble.REFUSES: TAKES_ALL,
        Trouble.FAILS: TAKES_ALL,
        Trouble.DENIES: TAKES_ALL,
        Trouble.RETURNS: TAKES_ALL,
        Trouble.THROTTLES: TAKES_ALL,
        Trouble.TIMES_OUT: NO_ANSWER,
        Trouble.HANGS_UP: NO_ANSWER,
        Trouble.GARBLES: NO_ANSWER,
        Trouble.CUTS_SHORT: NO_ANSWER,
    }

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._path = Path(self._folder.name, "events.log")
        os.mkfifo(self._path)
        self.url = f"log:{self._path}"
        self._read = b""
        self._reader: int | None = None
        self._open()

    def accepted(self) -> Sequence[str]:
        with suppress(BlockingIOError):
            while self._reader is not None and (some := os.read(self._reader, PIPE_BYTES)):
                self._read += some
        return self._read.decode().splitlines()

    def arrived(self) -> Sequence[str]:
        return self.accepted()

    def cause(self, trouble: Trouble, position: int = 1) -> None:
        self.accepted()
        self._leave()

    def recover(self) -> None:
        self._open()

    def close(self) -> None:
        self._leave()
        self._folder.cleanup()

    def _leave(self) -> None:
        if self._reader is not None:
            os.close(self._reader)
        self._reader = None

    def _open(self) -> None:
        reader = self._reader = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK)
        fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
