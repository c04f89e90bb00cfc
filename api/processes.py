"""The processes of the API: they are started, started again when they die, and stopped together.

Granian serves in each of them. Its own way of watching them is not used: it ends all of them if one dies twice within
some seconds.
"""

import signal
import time
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.process import BaseProcess

import structlog
from granian.server import MPServer

from api import process
from api.process import STOP_SECONDS
from domain.runtime.restarts import CRASH_LOOP, PAUSES_SECONDS, WELL_SECONDS, Restarts, cause
from domain.runtime.startup import WRONG_CONFIGURATION

#: Any of these ends the API. SIGHUP comes when its terminal is closed.
ENDING = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})

#: The exit code of an API whose processes crash in a loop.
TROUBLE = 1

#: A process that the configuration keeps from starting is tried again after this time, while others serve.
TRY_AGAIN_SECONDS = 15.0

RESTARTED = (
    "A process of the API has died. Its clients got no answer to what was in flight, and have to repeat these requests."
    " Another process is started in {pause:g} s."
)

CRASHES_ALONE = (
    f"A process of the API has died {CRASH_LOOP} times or more in a row, each time within {WELL_SECONDS:g} s of its"
    " start. The others serve, with less capacity. The lines above say what happened: mend that. The start is tried"
    f" again every {PAUSES_SECONDS[-1]:g} s, and the API ends when no process is left."
)

CRASHES = (
    f"A process of the API has died {CRASH_LOOP} times or more in a row, each time within {WELL_SECONDS:g} s of its"
    f" start, and no other one serves. So the API ends, with exit code {TROUBLE}. The lines above say what happened:"
    " mend that, and start it again."
)

WRONG_FOR_ONE = (
    "A process of the API can't start: the configuration is wrong, and the lines above name what is wrong. Processes"
    " that have read it before continue with what they have read. Correct it: the start is tried again every"
    f" {TRY_AGAIN_SECONDS:g} s, and the API ends when no process is left."
)

WRONG = (
    "No process of the API can start: the configuration is wrong, and the lines above name what is wrong. So the API"
    f" ends, with exit code {WRONG_CONFIGURATION}: correct it and start the API again."
)

HANGS = (
    f"A process of the API had not stopped after {STOP_SECONDS} s, so it was killed. A client that got no answer has"
    " to repeat its request. Look whether PostgreSQL hangs, or a client goes on sending."
)

log = structlog.get_logger()


class Server(MPServer):
    """Granian's server with our supervision of its processes."""

    #: What the main process exits with when `serve` has returned.
    exit_code = 0

    def _serve(self, spawn_target: Callable[..., None], target_loader: Callable[..., object]) -> None:
        """Serve until a signal comes, or no process can be kept. Granian calls this with its options complete."""
        self._init_shared_socket()  # type: ignore[no-untyped-call]
        run = partial(process.run, spawn_target)

        def made(number: int) -> BaseProcess:
            # Granian watches a process that it starts itself, and this one only makes it.
            made: BaseProcess = self._spawn_worker(number, run, target_loader).inner
            return made

        self.exit_code = Supervisor([Place(partial(made, number)) for number in range(self.workers)]).run()


class Place:
    """The place of one process: the process that is there, or the time at which the next one is started."""

    def __init__(self, make: Callable[[], BaseProcess]) -> None:
        #: By the monotonic clock: when the process was started or, if there is none, when one will be.
        self.starts_at = 0.0
        #: Whether the last process could not start, or crashed in a loop. The next one will probably fare as it did.
        self.is_hopeless = False
        self._make = make
        self._restarts = Restarts()
        self._process: BaseProcess | None = None

    @property
    def has_process(self) -> bool:
        return self._process is not None

    @property
    def serves(self) -> bool:
        """Whether there is a process that serves, or that will as far as anybody knows."""
        is_well = self._process is not None and self._process.exitcode is None and self.lived_seconds >= WELL_SECONDS
        return is_well or not self.is_hopeless

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

    def stop(self) -> None:
        """Ask the process to stop."""
        if self._process:
            self._process.terminate()

    def kill_after(self, seconds: float) -> None:
        """Wait for the end of the process, and kill it after that time."""
        if self._process is None:
            return
        self._process.join(max(0.0, seconds))
        if self._process.exitcode is None:
            log.warning("api.process_hangs", process=self._process.pid, message=HANGS)
            self._process.kill()
            self._process.join()


class Supervisor:
    """Keeps a process at each place, until a signal comes, or no process can be kept at any."""

    def __init__(self, places: Sequence[Place]) -> None:
        self._places = places
        is_nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        self._ending = ENDING - {signal.SIGHUP} if is_nohup else ENDING

    def run(self) -> int:
        """Return the exit code, which is 0 after a signal."""
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        # They wait until this thread takes them.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, *self._ending})
        exit_code: int | None = None
        try:
            while exit_code is None:
                for place in self._places:
                    place.start_if_due()
                exit_code = 0 if self._next_signal() in self._ending else self._after_deaths()
        finally:
            # Also after an error here: nobody else would stop them.
            self._stop()
        return exit_code

    def _next_signal(self) -> int | None:
        """Wait for a signal, until the next process has to be started or some seconds are over. Return its number."""
        starts = [place.starts_at for place in self._places if not place.has_process]
        seconds = min(starts, default=float("inf")) - time.monotonic()
        received = signal.sigtimedwait({signal.SIGCHLD, *self._ending}, min(max(0.0, seconds), STOP_SECONDS))
        return received.si_signo if received else None

    def _after_deaths(self) -> int | None:
        """Have the processes that have died started again. Return the exit code if the API has to end instead."""
        for place in self._places:
            if ended := place.take_ended():
                exit_code = self._after_death(place, *ended)
                if exit_code is not None:
                    return exit_code
        return None

    def _after_death(self, place: Place, process: int, code: int) -> int | None:
        """Have a process that has died started again. Return the exit code if the API has to end instead."""
        facts = {"process": process, "ended_by": cause(code), "lived_seconds": round(place.lived_seconds, 1)}
        pause = place.fail(code)
        is_over = not any(each.serves for each in self._places)
        if code == WRONG_CONFIGURATION:
            log.error("api.wrong_configuration", **facts, message=WRONG if is_over else WRONG_FOR_ONE)
            return WRONG_CONFIGURATION if is_over else None
        if place.is_hopeless:
            log.error("api.crash_loop", **facts, message=CRASHES if is_over else CRASHES_ALONE)
            return TROUBLE if is_over else None
        log.error("api.process_died", **facts, message=RESTARTED.format(pause=pause))
        return None

    def _stop(self) -> None:
        """Stop all processes, and kill those that don't stop in time."""
        until = time.monotonic() + STOP_SECONDS
        for place in self._places:
            place.stop()
        for place in self._places:
            place.kill_after(until - time.monotonic())
