"""The place of one process among those of a program: the process that is there, or when the next one starts."""

import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess

from domain.runtime.processes.restarts import PAUSES_SECONDS, WELL_SECONDS, Restarts
from domain.runtime.startup import WRONG_CONFIGURATION

#: A process that the configuration keeps from starting is tried again after this time, while others work.
TRY_AGAIN_SECONDS = 15.0


class Place:
    """The place of one process, which is started again however often it dies."""

    def __init__(self, make: Callable[[], BaseProcess], *, lost: str, is_vital: bool = True) -> None:
        """`make` returns a process that is not started yet, and `lost` says what the death of one means.

        A place that is not vital has a process beside those that the program is there for.
        """
        self.lost = lost
        #: By the monotonic clock: when the process was started or, if there is none, when one will be.
        self.starts_at = 0.0
        #: Whether the last process could not start, or crashed in a loop. The next one will probably fare as it did.
        self.is_hopeless = False
        self._make = make
        self._is_vital = is_vital
        self._restarts = Restarts()
        self._process: BaseProcess | None = None

    @property
    def has_process(self) -> bool:
        return self._process is not None

    @property
    def works(self) -> bool:
        """Whether it has a process that the program is there for, or will have one as far as anybody knows."""
        is_well = self._process is not None and self._process.exitcode is None and self.lived_seconds >= WELL_SECONDS
        return self._is_vital and (is_well or not self.is_hopeless)

    @property
    def lived_seconds(self) -> float:
        """For how long the process has lived, or had lived until it ended just now."""
        return time.monotonic() - self.starts_at

    def start_if_due(self) -> None:
        if self._process is None and self.starts_at <= time.monotonic():
            self._process = self._make()
            self._process.start()
            self.starts_at = time.monotonic()

    def take_ended(self) -> tuple[int, int] | None:
        """If its process has ended, return the id and the exit code. Then there is no process any more."""
        if self._process is None or self._process.exitcode is None:
            return None
        assert self._process.pid is not None
        ended = self._process.pid, self._process.exitcode
        self._process.close()
        self._process = None
        return ended

    def fail(self, code: int) -> float:
        """Note that the process has ended with this exit code. Return after how many seconds the next one starts."""
        pause = TRY_AGAIN_SECONDS if code == WRONG_CONFIGURATION else self._restarts.pause_after(self.lived_seconds)
        self.is_hopeless = code == WRONG_CONFIGURATION or pause is None
        pause = PAUSES_SECONDS[-1] if pause is None else pause
        self.starts_at = time.monotonic() + pause
        return pause

    def terminate(self) -> None:
        """Ask its process to end."""
        if self._process:
            self._process.terminate()

    def kill_after(self, seconds: float) -> bool:
        """Wait for the end of its process, and kill it after that time. Return whether that was necessary."""
        if self._process is None:
            return False
        self._process.join(max(0.0, seconds))
        if self._process.exitcode is not None:
            return False
        self._process.kill()
        self._process.join()
        return True
