"""The invariants of reservations: their history agrees with them, and no hold is overdue for long."""

import pytest

from domain.invariants.reservations import INVARIANTS
from tests.support.builders import Db
from tests.support.invariants import Violation, execute, violations

HISTORY, OVERDUE = (invariant.title for invariant in INVARIANTS)

VIOLATIONS: list[Violation] = [
    (HISTORY, "UPDATE reservations SET version = version + 1 WHERE status = 'CANCELLED'"),
    (HISTORY, "UPDATE reservations SET status = 'CONFIRMED' WHERE status = 'COMPLETED'"),
    (HISTORY, "DELETE FROM reservation_history WHERE to_status = 'CANCELLED'"),
    (HISTORY, "DELETE FROM reservation_history"),
    (OVERDUE, "UPDATE reservations SET expires_at = now() - interval '11 minutes' WHERE status = 'PENDING'"),
]


@pytest.mark.parametrize(("invariant", "statement"), VIOLATIONS)
def test_a_violation_is_found_and_no_other(used: Db, invariant: str, statement: str) -> None:
    execute(used, statement)

    assert list(violations(used)) == [invariant]
