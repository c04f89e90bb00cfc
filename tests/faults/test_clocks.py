"""A worker whose clock is wrong: what it signs is dated, and receivers look at the date."""

import pytest

from tests.faults.fault_injections import FAULTS
from tests.proofs.checker import check
from tests.proofs.conftest import Open


@pytest.mark.parametrize(
    "fault_name",
    [
        "clock-ahead",
        "clock-behind",
    ],
)
def test_what_it_signs_is_believed(open_house: Open, fault_name: str) -> None:
    """Standard Webhooks has receivers refuse what is dated more than 5 minutes from their own clock."""
    house = open_house()
    house.partners.ready()
    house.hold(house.an_item(3), 3)

    said = house.start("cron", "bin/process-outbox", **FAULTS[fault_name].environment())

    assert said.popen.wait(60) == 0, said.log.read_text()
    check(house)
