"""What the suite needs of a destination's outside: a world that it can look at, and make trouble in."""

import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import ClassVar

from tests.conformance.proxy import Answers, Gate


class Trouble(Enum):
    """What may go wrong out there."""

    #: One message is not wanted, and never will be.
    REFUSES = "refuses"
    #: One message is not taken, this time.
    FAILS = "fails"
    #: It takes what it is sent and says nothing.
    TIMES_OUT = "times out after accepting"
    #: It takes what it is sent and ends the connection.
    HANGS_UP = "hangs up after accepting"
    #: It takes what it is sent and answers with nonsense.
    GARBLES = "garbles"
    #: It takes what it is sent and answers with half of what it wanted to say.
    CUTS_SHORT = "cuts its answer short"
    #: There is nobody here for this: it can't be routed.
    RETURNS = "returns"
    #: Not so many.
    THROTTLES = "throttles"
    #: Nobody listens.
    GOES_DOWN = "goes down"


#: Those that one message alone meets.
OF_ONE = frozenset({Trouble.REFUSES, Trouble.FAILS})

#: Those after which nobody can tell here what has arrived.
AMBIGUOUS = (Trouble.TIMES_OUT, Trouble.HANGS_UP, Trouble.GARBLES, Trouble.CUTS_SHORT)

#: What a gate before the server does to its answers then.
AT_THE_GATE = {
    Trouble.TIMES_OUT: Answers.SILENCE,
    Trouble.HANGS_UP: Answers.HANG_UP,
    Trouble.GARBLES: Answers.NONSENSE,
    Trouble.CUTS_SHORT: Answers.HALF,
}


class Door:
    """Where messages come in, one by one. It remembers them, and picks the one that has trouble. Safe for threads."""

    def __init__(self) -> None:
        self.arrived: list[str] = []
        self._lock = threading.Lock()
        self._trouble: Trouble | None = None
        self._left = 0
        self._culprit = ""

    def suffers(self, trouble: Trouble, position: int) -> None:
        """From now on, all messages meet this trouble; or, if one meets it alone, the one that comes in so-manyth."""
        self._trouble = trouble
        self._left = position
        self._culprit = ""

    def recovers(self) -> None:
        self._trouble = None

    def meets(self, body: str) -> Trouble | None:
        """Let a message in. Return the trouble that it meets."""
        with self._lock:
            self.arrived.append(body)
            if self._trouble not in OF_ONE:
                return self._trouble
            self._left -= 1
            if self._left == 0:
                self._culprit = event_id(body)
            return self._trouble if event_id(body) == self._culprit else None


class World(ABC):
    """A real server out there and what stands before it, both ready when it has been made.

    A new destination needs one of these, and a line in `worlds.WORLDS`. Its messages must
    be in the format `envelope`, which the suite reads.
    """

    #: What can't happen to it, each with its reason. The suite leaves these out.
    cannot: ClassVar[Mapping[Trouble, str]] = {}

    #: What it returns is dead at once; otherwise to return is an operator's mistake, and all waits.
    returned_is_dead: ClassVar[bool] = False

    #: It drops by itself what comes in again under the same event id.
    drops_repeats: ClassVar[bool] = False

    #: What it is waited for where it says nothing. Long enough to connect in, and short for the test's sake.
    short_seconds: ClassVar[float] = 0.5

    #: What it is waited for elsewhere: more than a busy machine needs.
    timeout_seconds: ClassVar[float] = 20.0

    #: Where the destination is found, as in a routes file.
    url: str

    @abstractmethod
    def accepted(self) -> Sequence[str]:
        """Return the bodies that it has taken, repeats included, in the order in which it took them."""

    @abstractmethod
    def arrived(self) -> Sequence[str]:
        """Return the bodies that came in, whether it took them or not."""

    @abstractmethod
    def suffers(self, trouble: Trouble, position: int = 1) -> None:
        """Make trouble. REFUSES and FAILS meet the message that comes in so-manyth from now on, each time it does."""

    @abstractmethod
    def recovers(self) -> None:
        """Let all trouble be over."""

    @abstractmethod
    def close(self) -> None: ...


class Gated(World):
    """A world behind a gate, which makes those troubles that are the connection's, and a door, which counts."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.door = Door()
        self._trouble: Trouble | None = None

    def arrived(self) -> Sequence[str]:
        return self.door.arrived

    def suffers(self, trouble: Trouble, position: int = 1) -> None:
        if trouble is Trouble.GOES_DOWN:
            self.gate.shut()
        elif trouble in AT_THE_GATE:
            self.gate.answers = AT_THE_GATE[trouble]
        else:
            self.door.suffers(trouble, position)
        self._trouble = trouble

    def recovers(self) -> None:
        self.door.recovers()
        self.gate.answers = Answers.PASS
        if self._trouble is Trouble.GOES_DOWN:
            self.gate.open()
        else:
            self.gate.hang_up()

    def close(self) -> None:
        self.gate.close()


def event_id(body: str) -> str:
    return str(json.loads(body)["event_id"])


def aggregate_id(body: str) -> str:
    """Return the aggregate that an event of the suite is about."""
    return str(json.loads(body)["payload"]["booking_id"])
