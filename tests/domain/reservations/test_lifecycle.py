"""The lifecycle: the table of changes of status that are allowed, and what each status does to stock."""

from itertools import product

import pytest

from domain.reservations.lifecycle import CONSUMING, HOLDING, RELEASING, TRANSITIONS, Status, check
from domain.runtime.errors import WrongStatus

#: DESIGN §3, written a second time.
ALLOWED = {
    Status.PENDING: {Status.CONFIRMED, Status.REJECTED, Status.CANCELLED, Status.EXPIRED},
    Status.CONFIRMED: {Status.CHECKED_IN, Status.COMPLETED, Status.CANCELLED, Status.NO_SHOW},
    Status.CHECKED_IN: {Status.COMPLETED, Status.CANCELLED},
    Status.BLOCKED: {Status.CANCELLED},
}
PAIRS = [(current, to) for current, to in product(Status, Status)]
LEGAL = [(current, to) for current, to in PAIRS if to in ALLOWED.get(current, ())]
ILLEGAL = [pair for pair in PAIRS if pair not in LEGAL]


@pytest.mark.parametrize(("current", "to"), LEGAL)
def test_the_table_allows_every_change_of_the_design(current: Status, to: Status) -> None:
    check(current, to)


@pytest.mark.parametrize(("current", "to"), ILLEGAL)
def test_the_table_allows_no_other_change(current: Status, to: Status) -> None:
    with pytest.raises(WrongStatus) as refused:
        check(current, to)

    assert (refused.value.status, refused.value.to) == (current, to)


def test_every_status_either_holds_or_consumes_or_releases_stock() -> None:
    assert set(Status) == HOLDING | CONSUMING | RELEASING
    assert len(HOLDING) + len(CONSUMING) + len(RELEASING) == len(Status)
    assert set(TRANSITIONS) == HOLDING
