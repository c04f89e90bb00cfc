"""The supervisor of `bin/up`: it prints what the programs write, starts again what dies, and ends all programs."""

import selectors
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import FrameType

from deploy.output import Output
from deploy.parts import CannotStart, Death, Part
from deploy.programs import Program
from deploy.servers import Server
from domain.runtime.processes.restarts import CRASH_LOOP, WELL_SECONDS, Restarts
from domain.runtime.startup import WRONG_CONFIGURATION

#: Any of these ends `bin/up`. SIGHUP comes when its terminal is closed.
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

#: How soon a death or a signal is noticed while nothing is printed.
LOOK_SECONDS = 0.1

#: Every program ends within 10 s of SIGTERM. One that has not ended by then hangs, and is killed.
KILL_SECONDS = 11.0

#: How often what the programs write is read before a death is reported: a program may never stop writing.
MOST_ROUNDS = 100

TROUBLE = 1

DIED = "{name} has died ({cause}). {lost} It is started again {when}."
WRONG = "{name} has ended: its configuration can't be used, and the lines above name what is wrong. So bin/up ends."
CRASHES = (
    f"{{name}} has died {CRASH_LOOP} times in a row ({{cause}}), each time within {WELL_SECONDS:g} s of its start. So"
    " bin/up ends, and keeps the data. The lines above say what happened."
)


def on_end(act: Callable[[int], None]) -> None:
    """Have a function called at each signal that ends `bin/up`. After nohup, SIGHUP does not."""

    def handle(number: int, _: FrameType | None) -> None:
        act(number)

    is_nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    for one in ENDING:
        if not (is_nohup and one == signal.SIGHUP):
            signal.signal(one, handle)


def ignore_signals() -> None:
    """Let no second signal interrupt the end."""
    for one in ENDING:
        signal.signal(one, signal.SIG_IGN)


@dataclass
class Watched:
    """A part, and what is known of its starts. `starts_at` is by the monotonic clock."""

    part: Part
    is_started: bool = False
    starts_at: float = 0.0
    restarts: Restarts = field(default_factory=Restarts)

    def start_if_due(self) -> Death | None:
        """Start it if it is time. Return the death of a part that can't be started."""
        if self.is_started or self.starts_at > time.monotonic():
            return None
        self.starts_at = time.monotonic()
        try:
            self.part.start()
        except CannotStart as error:
            return Death(f"it does not start: {error}")
        self.is_started = True
        return None

    def death(self) -> Death | None:
        """Return what ended it since it was started."""
        return self.start_if_due() or (self.part.death() if self.is_started else None)


class Supervisor:
    """Keeps servers, which run already, and programs, until a signal comes or one of them can't be kept."""

    def __init__(
        self, servers: Sequence[Server], programs: Sequence[Program], output: Output, reads: selectors.BaseSelector
    ) -> None:
        self._programs = programs
        self._parts = [Watched(one, is_started=True, starts_at=time.monotonic()) for one in servers]
        self._parts += [Watched(one) for one in programs]
        self._output = output
        self._reads = reads
        self._received: list[int] = []

    def run(self, look: Callable[[], None]) -> int:
        """Return the exit code, which is 0 after a signal. `look` is called again and again meanwhile."""
        on_end(self._received.append)
        exit_code = None
        while exit_code is None:
            exit_code = self._after_deaths()
            self._print(LOOK_SECONDS)
            look()
            if exit_code is None and self._received:
                exit_code = 0
            elif exit_code is None and self._output.is_closed:
                exit_code = TROUBLE
        ignore_signals()
        self._end()
        return exit_code

    def _after_deaths(self) -> int | None:
        """Start what is due, and say what has died. Return the exit code if `bin/up` has to end."""
        for watched in self._parts:
            if death := watched.death():
                watched.is_started = False
                if exit_code := self._after_death(watched, death):
                    return exit_code
        return None

    def _after_death(self, watched: Watched, death: Death) -> int | None:
        self._print_rest()
        name, lived_seconds = watched.part.name, time.monotonic() - watched.starts_at
        if death.is_final:
            self._output.say(WRONG.format(name=name))
            return WRONG_CONFIGURATION
        pause = watched.restarts.pause_after(lived_seconds)
        if pause is None:
            self._output.say(CRASHES.format(name=name, cause=death.cause))
            return TROUBLE
        when = f"in {pause:g} s" if pause else "now"
        self._output.say(DIED.format(name=name, cause=death.cause, lost=watched.part.lost, when=when))
        watched.starts_at = time.monotonic() + pause
        return None

    def _print(self, seconds: float) -> bool:
        """Print what the programs have written. Wait for that for so long. Return whether there was any."""
        found = self._reads.select(seconds)
        for key, _ in found:
            for line in key.data.read():
                self._output.say(line, name=key.data.name)
        return bool(found)

    def _print_rest(self) -> None:
        """Print what the programs have written so far, before something is said of them."""
        rounds = 0
        while rounds < MOST_ROUNDS and self._print(0.0):
            rounds += 1

    def _end(self) -> None:
        self._output.say("Everything is being stopped. The data is kept.")
        for program in self._programs:
            program.terminate()
        until = time.monotonic() + KILL_SECONDS
        while time.monotonic() < until and any(program.is_running for program in self._programs):
            self._print(LOOK_SECONDS)
        for program in self._programs:
            if program.is_running:
                self._output.say(f"{program.name} has not ended after {KILL_SECONDS:g} s, so it is killed.")
            program.kill()
        self._print_rest()
