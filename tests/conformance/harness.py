"""What the suite needs of a destination's server: a harness that can examine it, and can cause trouble at it."""

import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import ClassVar

from tests.conformance.proxy import Answers, Proxy


class Trouble(Enum):
    """What may go wrong at a server."""

    #: It refuses one message, and always will.
    REFUSES = "refuses"
    #: It does not take one message, this time.
    FAILS = "fails"
    #: It lets one message not in, as it would let in none if an operator had made a mistake.
    DENIES = "denies"
    #: It takes what it is sent and does not answer.
    TIMES_OUT = "times out after accepting"
    #: It takes what it is sent and ends the connection.
    HANGS_UP = "hangs up after accepting"
    #: It takes what it is sent and answers with nonsense.
    GARBLES = "garbles"
    #: It takes what it is sent and sends half of its answer.
    CUTS_SHORT = "cuts its answer short"
    #: It returns what it is sent, because an operator has made a mistake: it can't be routed to anybody.
    RETURNS = "returns"
    #: It says that it gets too many messages.
    THROTTLES = "throttles"
    #: Its port refuses connections.
    GOES_DOWN = "goes down"


#: The troubles of one message alone.
OF_ONE_MESSAGE = frozenset({Trouble.REFUSES, Trouble.FAILS, Trouble.DENIES})

#: The troubles after which the sender can't know what has arrived.
AMBIGUOUS = (Trouble.TIMES_OUT, Trouble.HANGS_UP, Trouble.GARBLES, Trouble.CUTS_SHORT)

#: What a proxy does to the server's answers in each of them.
AT_THE_PROXY = {
    Trouble.TIMES_OUT: Answers.SILENCE,
    Trouble.HANGS_UP: Answers.HANG_UP,
    Trouble.GARBLES: Answers.NONSENSE,
    Trouble.CUTS_SHORT: Answers.HALF,
}


class Intake:
    """Counts the messages that come in, and chooses the one that has trouble. Safe for threads."""

    def __init__(self) -> None:
        self.arrived: list[str] = []
        self._lock = threading.Lock()
        self._trouble: Trouble | None = None
        self._until_chosen = 0
        self._chosen = ""

    def cause(self, trouble: Trouble, position: int) -> None:
        """Give this trouble to all messages from now on, or if it is of one message, to the one at this position."""
        self._trouble = trouble
        self._until_chosen = position
        self._chosen = ""

    def recover(self) -> None:
        self._trouble = None

    def admit(self, body: str) -> Trouble | None:
        """Let a message in. Return the trouble that it has."""
        with self._lock:
            self.arrived.append(body)
            if self._trouble not in OF_ONE_MESSAGE:
                return self._trouble
            self._until_chosen -= 1
            if self._until_chosen == 0:
                self._chosen = event_id(body)
            return self._trouble if event_id(body) == self._chosen else None


class Harness(ABC):
    """A real server and the proxies before it. They are ready when the harness has been made.

    A new destination needs a harness, and a line in `harnesses.HARNESSES`. Its messages must be in the format
    `envelope`, which the suite reads.
    """

    #: The scheme of the destination's URL. If its sink has several schemes, one of them.
    scheme: ClassVar[str]

    #: The troubles that can't happen, each with its reason. The suite leaves them out.
    impossible: ClassVar[Mapping[Trouble, str]] = {}

    #: Whether the server itself drops a message that arrives again under the same event id.
    drops_repeats: ClassVar[bool] = False

    #: The time-out of a call that gets no answer: long enough for connecting, and short for the test's sake.
    short_seconds: ClassVar[float] = 0.5

    #: The time-out in an outage, if it is waited for until it is over.
    outage_seconds: ClassVar[float] = 20.0

    #: The time-out of all other calls: more than a busy machine needs.
    timeout_seconds: ClassVar[float] = 20.0

    #: The URL of the destination, as in a routes file.
    url: str

    @abstractmethod
    def accepted(self) -> Sequence[str]:
        """Return the bodies that the server has accepted, repeats included, in the order in which it accepted them."""

    @abstractmethod
    def arrived(self) -> Sequence[str]:
        """Return the bodies that came in, whether the server accepted them or not."""

    @abstractmethod
    def cause(self, trouble: Trouble, position: int = 1) -> None:
        """Cause trouble. Those of one message are given to that at this position from now, each time it is sent."""

    @abstractmethod
    def recover(self) -> None:
        """End all trouble."""

    @abstractmethod
    def close(self) -> None: ...


class ProxiedHarness(Harness):
    """A harness with a proxy, which causes the troubles of connections, and an intake, which counts messages."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.intake = Intake()
        self._trouble: Trouble | None = None

    def arrived(self) -> Sequence[str]:
        return self.intake.arrived

    def cause(self, trouble: Trouble, position: int = 1) -> None:
        if trouble is Trouble.GOES_DOWN:
            self.proxy.shut()
        elif trouble in AT_THE_PROXY:
            self.proxy.answers = AT_THE_PROXY[trouble]
        else:
            self.intake.cause(trouble, position)
        self._trouble = trouble

    def recover(self) -> None:
        self.intake.recover()
        self.proxy.answers = Answers.PASS
        if self._trouble is Trouble.GOES_DOWN:
            self.proxy.open()
        else:
            self.proxy.hang_up()

    def close(self) -> None:
        self.proxy.close()


def event_id(body: str) -> str:
    return str(json.loads(body)["event_id"])


def aggregate_id(body: str) -> str:
    """Return the aggregate that an event of the suite belongs to."""
    return str(json.loads(body)["payload"]["booking_id"])
