"""The supervisor of a worker: it starts the processes, starts again what dies, and ends all of them at the end."""

import signal
import time
from collections.abc import Iterator, Sequence

import structlog

from domain.runtime.restarts import CRASH_LOOP, WELL_SECONDS, cause
from domain.runtime.startup import WRONG_CONFIGURATION
from worker.job import Job

#: Any of these ends the worker.
ENDING = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})

#: A process that has not ended by then is killed: a worker ends within 10 s of SIGTERM, whatever hangs.
KILL_SECONDS = 9.0

#: The exit code of a worker whose processes crash in a loop, or did not end as they should.
TROUBLE = 1

RESTARTED = "A process of the worker has died. {lost} Another one is started in {pause:g} s."

#: A process that the configuration keeps from starting is tried again after this time, while others work on.
TRY_AGAIN_SECONDS = 15.0

WRONG = (
    "The configuration has become wrong since this worker was started; the lines above name what is wrong. So the"
    f" worker ends, with exit code {WRONG_CONFIGURATION}: correct it and start the worker again."
)

WRONG_FOR_ONE = (
    "A process of the worker can't start: the configuration has become wrong since the others were started, and the"
    " lines above name what is wrong. The others work on with what they have read. Correct it: the start is tried again"
    f" every {TRY_AGAIN_SECONDS:g} s, and the worker ends when no process is left."
)

CRASHES = (
    f"A process of the worker has died {CRASH_LOOP} times in a row, each time within {WELL_SECONDS:g} s of its start."
    f" So the worker ends, with exit code {TROUBLE}. The lines above say what happened: mend that, and start it again."
)

HANGS = (
    f"A process of the worker had not ended after {KILL_SECONDS:g} s, so it was killed. What it had sent and not"
    " settled is sent again. Look whether PostgreSQL or a destination hangs."
)

BROKE = "A process of the worker broke while it ended. What it had sent and not settled is sent again."

log = structlog.get_logger()


class Supervisor:
    """Keeps one process for each job, until a signal comes, or a process can't be kept."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._jobs = jobs
        is_nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        self._ending = ENDING - {signal.SIGHUP} if is_nohup else ENDING

    def run(self) -> int:
        """Return the exit code, which is 0 after a signal if all has ended as it should."""
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        # They wait until this thread takes them. A new process has them blocked as well, until it is ready for them.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, *self._ending})
        exit_code: int | None = None
        try:
            while exit_code is None:
                for job in self._jobs:
                    job.start_if_due()
                exit_code = 0 if self._next_signal() in self._ending else self._after_deaths()
        finally:
            # Also after an error here: nobody else would end them.
            ended = self._end()
        return max(exit_code, ended)

    def _next_signal(self) -> int | None:
        """Wait for a signal, until the next process has to be started or some seconds are over. Return its number."""
        starts = [job.starts_at for job in self._jobs if not job.has_process]
        seconds = min(starts, default=float("inf")) - time.monotonic()
        received = signal.sigtimedwait({signal.SIGCHLD, *self._ending}, min(max(0.0, seconds), KILL_SECONDS))
        return received.si_signo if received else None

    def _after_deaths(self) -> int | None:
        """Have the processes that have died started again. Return the exit code if the worker has to end instead."""
        for job, process, code in self._ended():
            lived_seconds = time.monotonic() - job.starts_at
            facts = {"process": process, "ended_by": cause(code), "lived_seconds": round(lived_seconds, 1)}
            if code == WRONG_CONFIGURATION and not any(other.is_working for other in self._jobs):
                log.error("worker.wrong_configuration", **facts, message=WRONG)
                return WRONG_CONFIGURATION
            if code == WRONG_CONFIGURATION:
                log.error("worker.wrong_configuration", **facts, message=WRONG_FOR_ONE)
                job.starts_at = time.monotonic() + TRY_AGAIN_SECONDS
                continue
            pause = job.pause_after(lived_seconds)
            if pause is None:
                log.error("worker.crash_loop", **facts, message=CRASHES)
                return TROUBLE
            log.error("worker.process_died", **facts, message=RESTARTED.format(lost=job.lost, pause=pause))
            job.starts_at = time.monotonic() + pause
        return None

    def _end(self) -> int:
        """End all processes. Return 0 if each of them has finished what it had begun."""
        until = time.monotonic() + KILL_SECONDS
        for job in self._jobs:
            job.terminate()
        are_killed = [job.kill_after(until - time.monotonic()) for job in self._jobs]
        broken = [(process, code) for _, process, code in self._ended() if code]
        for process, code in broken:
            message = HANGS if any(are_killed) and code == -signal.SIGKILL else BROKE
            log.error("worker.process_broke", process=process, ended_by=cause(code), message=message)
        return TROUBLE if broken else 0

    def _ended(self) -> Iterator[tuple[Job, int, int]]:
        """Take each process that has ended. Return its job, its id and its exit code."""
        for job in self._jobs:
            if ended := job.take_ended():
                yield job, *ended
