"""The supervisor of a program's processes: it starts them, starts again what dies, and ends all of them at the end."""

import signal
import time
from collections.abc import Iterator, Mapping, Sequence

import structlog

from domain.runtime.processes.place import TRY_AGAIN_SECONDS, Place
from domain.runtime.processes.restarts import CRASH_LOOP, PAUSES_SECONDS, WELL_SECONDS, cause
from domain.runtime.startup import WRONG_CONFIGURATION

#: Any of these ends the program. SIGHUP comes when its terminal is closed.
ENDING = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})

#: The exit code of a program whose processes crash in a loop.
TROUBLE = 1

DIED = "A process of the {program} has died. {lost} Another one is started in {pause:g} s."

_CRASHES = (
    f"A process of the {{program}} has died {CRASH_LOOP} times or more in a row, each time within {WELL_SECONDS:g} s of"
    " its start. "
)

CRASHES_ALONE = (
    _CRASHES + "{lost} The others work on. The lines above say what happened: mend that. The start is tried again every"
    f" {PAUSES_SECONDS[-1]:g} s, and the {{program}} ends when no process is left."
)

CRASHES = (
    _CRASHES + f"No other one works. So the {{program}} ends, with exit code {TROUBLE}. The lines above say what"
    " happened: mend that, and start it again."
)

WRONG_FOR_ONE = (
    "A process of the {program} can't start: the configuration is wrong, and the lines above name what is wrong."
    " Processes that have read it before continue with what they have read. Correct it: the start is tried again every"
    f" {TRY_AGAIN_SECONDS:g} s, and the {{program}} ends when no process is left."
)

WRONG = (
    "No process of the {program} can start: the configuration is wrong, and the lines above name what is wrong. So the"
    f" {{program}} ends, with exit code {WRONG_CONFIGURATION}: correct it and start it again."
)

HANGS = "A process of the {program} had not ended after {seconds:g} s, so it was killed. {advice}"

BROKE = "A process of the {program} broke while it ended. {advice}"

log = structlog.get_logger()


class Supervisor:
    """Keeps a process at each place, until a signal comes, or no process can be kept at any."""

    def __init__(self, program: str, places: Sequence[Place], *, end_seconds: float, advice: str) -> None:
        """`program` is its name in the log. A process that has not ended after `end_seconds` is killed.

        `advice` says what that means, and where to look.
        """
        self._program = program
        self._places = places
        self._end_seconds = end_seconds
        self._advice = advice
        is_nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        self._ending = ENDING - {signal.SIGHUP} if is_nohup else ENDING
        #: Whether each process has ended by itself, and has finished what it had begun. Known after `run`.
        self.is_well_ended = True

    def run(self) -> int:
        """Return the exit code, which is 0 after a signal."""
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        # They wait until this thread takes them. A new process has them blocked as well, until it is ready for them.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, *self._ending})
        exit_code: int | None = None
        try:
            while exit_code is None:
                for place in self._places:
                    place.start_if_due()
                exit_code = 0 if self._next_signal() in self._ending else self._after_deaths()
        finally:
            # Also after an error here: nobody else would end them.
            self._end()
        return exit_code

    def _next_signal(self) -> int | None:
        """Wait for a signal, until the next process has to be started or some seconds are over. Return its number."""
        starts = [place.starts_at for place in self._places if not place.has_process]
        seconds = min(starts, default=float("inf")) - time.monotonic()
        received = signal.sigtimedwait({signal.SIGCHLD, *self._ending}, min(max(0.0, seconds), self._end_seconds))
        return received.si_signo if received else None

    def _after_deaths(self) -> int | None:
        """Have the processes that have died started again. Return the exit code if the program has to end instead."""
        for place, process, code in self._ended():
            exit_code = self._after_death(place, process, code)
            if exit_code is not None:
                return exit_code
        return None

    def _after_death(self, place: Place, process: int, code: int) -> int | None:
        """Have a process that has died started again. Return the exit code if the program has to end instead."""
        facts = {"process": process, "ended_by": cause(code), "lived_seconds": round(place.lived_seconds, 1)}
        pause = place.fail(code)
        is_over = not any(each.works for each in self._places)
        if code == WRONG_CONFIGURATION:
            self._say("wrong_configuration", WRONG if is_over else WRONG_FOR_ONE, facts)
            return WRONG_CONFIGURATION if is_over else None
        if place.is_hopeless:
            self._say("crash_loop", CRASHES if is_over else CRASHES_ALONE, facts, lost=place.lost)
            return TROUBLE if is_over else None
        self._say("process_died", DIED, facts, lost=place.lost, pause=pause)
        return None

    def _end(self) -> None:
        """End all processes, and kill those that don't end in time."""
        until = time.monotonic() + self._end_seconds
        for place in self._places:
            place.terminate()
        are_killed = [place.kill_after(until - time.monotonic()) for place in self._places]
        broken = [(process, code) for _, process, code in self._ended() if code not in (0, -signal.SIGTERM)]
        for process, code in broken:
            is_killed = any(are_killed) and code == -signal.SIGKILL
            facts = {"process": process, "ended_by": cause(code)}
            self._say("process_broke", HANGS if is_killed else BROKE, facts)
        self.is_well_ended = not broken

    def _ended(self) -> Iterator[tuple[Place, int, int]]:
        """Take each process that has ended. Return its place, its id and its exit code."""
        for place in self._places:
            if ended := place.take_ended():
                yield place, *ended

    def _say(self, event: str, message: str, facts: Mapping[str, object], **values: object) -> None:
        values |= {"program": self._program, "seconds": self._end_seconds, "advice": self._advice}
        log.error(f"{self._program.lower()}.{event}", **facts, message=message.format_map(values))
