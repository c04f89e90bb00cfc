"""What `bin/up` prints: its own lines, and those of its programs, each behind the time and a name."""

import os
import sys
from collections.abc import Sequence
from datetime import datetime

from honcho.colour import get_colours
from honcho.printer import Message, Printer

#: Who says the lines of `bin/up` itself.
SYSTEM = "system"

STANDARD_OUTPUT = 1


class Output:
    """Standard output. Once nobody can read it any more, nothing more is printed, and nothing is raised."""

    def __init__(self, names: Sequence[str]) -> None:
        self.is_closed = False
        self._colours = dict(zip(names, get_colours(), strict=False))
        self._printer = Printer(sys.stdout, width=max(map(len, [SYSTEM, *names])))

    def say(self, line: str, *, name: str = SYSTEM) -> None:
        """Print a line of a program, or one of `bin/up` itself."""
        # As people read it, in their own time zone.
        now = datetime.now().astimezone()
        try:
            self._printer.write(Message("line", line, now, name, self._colours.get(name)))
        except OSError:
            self._close()

    def show(self, text: str) -> None:
        """Print a text as it is."""
        try:
            print(text, flush=True)
        except OSError:
            self._close()

    def _close(self) -> None:
        """Throw away what comes. Python would report at the end that it can't write what it has kept."""
        self.is_closed = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, STANDARD_OUTPUT)
        os.close(nowhere)
