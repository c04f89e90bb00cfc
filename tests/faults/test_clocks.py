"""A worker whose clock is wrong: its signatures are dated, and receivers check the date."""

import pytest

from tests.faults.fault_injections import FAULTS
from tests.proofs.checker import check
from tests.proofs.conftest import Open

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("fault_name", ["clock-ahead", "clock-behind"])
def test_receivers_accept_what_it_signs(open_cluster: Open, fault_name: str) -> None:
    """By Standard Webhooks, a receiver refuses what is dated more than 5 minutes from its own clock."""
    cluster = open_cluster()
    cluster.partners.ready()
    cluster.hold(cluster.an_item(3), 3)

    process = cluster.start("cron", "bin/process-outbox", **FAULTS[fault_name].environment())

    assert process.popen.wait(60) == 0, process.log.read_text()
    check(cluster)
