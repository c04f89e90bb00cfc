"""A job of a worker: what one process at a time does, and that process."""

import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.context import ForkProcess

from domain.runtime.restarts import PAUSES_SECONDS, Restarts
from worker import process

#: What the death of a process means, by its kind.
WORK_LOST = (
    "Other processes continue with what it had leased: at once, or within 4 s if they can't see that it has died. Some"
    " events may be sent twice."
)
METRICS_LOST = "The metrics of this worker are not served meanwhile. Everything else works."

#: A process shares the memory of what its parent has imported.
_forks = get_context("fork")


class Job:
    """What one process at a time does, and that process."""

    def __init__(self, run: Callable[[], None], *, lost: str = WORK_LOST, is_vital: bool = True) -> None:
        """`lost` says what the death of its process means. If it is not vital, it is started again however it dies."""
        self.lost = lost
        #: By the monotonic clock: when the process was started or, if there is none, when one will be.
        self.starts_at = 0.0
        self._run = run
        self._is_vital = is_vital
        self._restarts = Restarts()
        self._process: ForkProcess | None = None

    @property
    def has_process(self) -> bool:
        return self._process is not None

    @property
    def is_working(self) -> bool:
        """Whether it has a process that lives, and that the worker is there for."""
        return self._is_vital and self._process is not None and self._process.exitcode is None

    def start_if_due(self) -> None:
        if self._process is None and self.starts_at <= time.monotonic():
            self._process = _forks.Process(target=process.run, args=[self._run])
            self._process.start()
            self.starts_at = time.monotonic()

    def take_ended(self) -> tuple[int, int] | None:
        """If its process has ended, return the id and the exit code. Then the job has no process any more."""
        if self._process is None or self._process.exitcode is None:
            return None
        assert self._process.pid is not None
        ended = self._process.pid, self._process.exitcode
        self._process.close()
        self._process = None
        return ended

    def pause_after(self, lived_seconds: float) -> float | None:
        """Return after how many seconds its process is started again, or None if it crashes in a loop."""
        pause = self._restarts.pause_after(lived_seconds)
        return PAUSES_SECONDS[-1] if pause is None and not self._is_vital else pause

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
