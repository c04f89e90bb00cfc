"""Blame: whose fault it is that a destination did not take a row. Pure.

The answer alone does not say it: a consumer answers 401 to everybody after its password was changed, and 404 to one
event whose booking it does not know. What the neighbours of the row were answered says it. `docs/destinations.md` has
the picture of this table.
"""

from collections.abc import Mapping
from enum import Enum

from domain.outbox.delivery.outcomes import Cause, Failed, Rejected, Unreachable


class Neighbours(Enum):
    """What other rows of the same destination have lately been answered."""

    #: None has been taken, as far as this process knows, or since the destination was found down.
    NEVER_TAKEN = "never taken"
    #: None of the last few was taken, though others had been before.
    ALL_REFUSED = "all refused"
    #: Too few have been taken since the destination was down.
    RECOVERING = "recovering"
    #: This row is refused for the first time, or none was taken since it was last refused, or that was in an outage
    #: that is over.
    UNKNOWN = "unknown"
    #: Since this row was last refused some were taken, and many were not.
    MANY_REFUSED = "many refused"
    #: Since this row was last refused others were taken, nearly all of them.
    TAKEN = "taken"


class Verdict(Enum):
    """What happens to a row that was not taken."""

    #: The destination is down: its breaker opens, and the row waits for as long. No attempt is spent.
    DOWN = "the destination is down"
    #: Nobody knows yet whose fault it is: the row waits, and with it those of its aggregate. No attempt is spent.
    IN_DOUBT = "in doubt"
    #: It is the row's fault: it spends an attempt, and is a dead letter after the last one.
    AT_FAULT = "at fault"
    #: It is a dead letter at once.
    DEAD = "dead"


def verdict(outcome: Rejected | Failed | Unreachable, neighbours: Neighbours) -> Verdict:
    """Return what happens to a row that was not taken."""
    match outcome:
        case Failed():
            return Verdict.AT_FAULT
        case Rejected():
            return Verdict.DOWN if neighbours is Neighbours.ALL_REFUSED else Verdict.DEAD
        case Unreachable(cause=cause):
            return VERDICTS[cause][neighbours]


#: An outage or too much load is nobody's fault as long as others meet it too.
_OF_THE_DESTINATION = {
    Neighbours.NEVER_TAKEN: Verdict.DOWN,
    Neighbours.ALL_REFUSED: Verdict.DOWN,
    Neighbours.RECOVERING: Verdict.IN_DOUBT,
    Neighbours.UNKNOWN: Verdict.IN_DOUBT,
    Neighbours.MANY_REFUSED: Verdict.IN_DOUBT,
    Neighbours.TAKEN: Verdict.AT_FAULT,
}

#: These answers depend on the request, so several rows may be at fault at the same time.
_OF_THE_REQUEST = {**_OF_THE_DESTINATION, Neighbours.MANY_REFUSED: Verdict.AT_FAULT}

#: What happens to a row that a destination did not take and may take later.
VERDICTS: Mapping[Cause, Mapping[Neighbours, Verdict]] = {
    Cause.OUTAGE: _OF_THE_DESTINATION,
    Cause.LOAD: _OF_THE_DESTINATION,
    Cause.ERROR: _OF_THE_REQUEST,
    Cause.DENIED: _OF_THE_REQUEST,
    Cause.GONE: _OF_THE_REQUEST,
}
