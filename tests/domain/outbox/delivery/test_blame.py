"""Whose fault it is that a row was not taken: the whole table, as `docs/destinations.md` shows it."""

import pytest

from domain.outbox import Cause, Failed, Rejected, Unreachable
from domain.outbox.delivery.blame import Neighbours, Verdict, verdict

DOWN, IN_DOUBT, AT_FAULT, DEAD = Verdict.DOWN, Verdict.IN_DOUBT, Verdict.AT_FAULT, Verdict.DEAD

#: What happens to a row, by what its neighbours were answered: in the order of Neighbours.
OF_THE_DESTINATION = (DOWN, DOWN, IN_DOUBT, IN_DOUBT, IN_DOUBT, AT_FAULT)
OF_THE_REQUEST = (DOWN, DOWN, IN_DOUBT, IN_DOUBT, AT_FAULT, AT_FAULT)
REJECTED = (DEAD, DOWN, DEAD, DEAD, DEAD, DEAD)
BROKE_HERE = (AT_FAULT,) * 6

TABLE = {
    Unreachable("refused", cause=Cause.OUTAGE): OF_THE_DESTINATION,
    Unreachable("503", cause=Cause.LOAD): OF_THE_DESTINATION,
    Unreachable("500", cause=Cause.ERROR): OF_THE_REQUEST,
    Unreachable("401", cause=Cause.DENIED): OF_THE_REQUEST,
    Unreachable("410", cause=Cause.GONE): OF_THE_REQUEST,
    Rejected("400"): REJECTED,
    Failed("it can't be written"): BROKE_HERE,
}


@pytest.mark.parametrize("outcome", TABLE, ids=lambda outcome: outcome.error)
def test_what_happens_to_a_row_depends_on_its_answer_and_on_those_of_its_neighbours(
    outcome: Failed | Rejected | Unreachable,
) -> None:
    assert tuple(verdict(outcome, neighbours) for neighbours in Neighbours) == TABLE[outcome]


def test_the_table_has_every_cause() -> None:
    assert {outcome.cause for outcome in TABLE if isinstance(outcome, Unreachable)} == set(Cause)
