"""The invariants of reservations: their history agrees with them, and no hold is overdue for long."""

import pytest

from domain.invariants.reservations import INVARIANTS
from tests.support.builders import Db
from tests.support.invariants import Violation, execute, violations

HISTORY, LINES, OVERDUE = (invariant.title for invariant in INVARIANTS)

VIOLATIONS: list[Violation] = [
    (HISTORY, "UPDATE reservations SET version = version + 1 WHERE status = 'CANCELLED'"),
    (HISTORY, "UPDATE reservations SET status = 'CONFIRMED' WHERE status = 'COMPLETED'"),
    (HISTORY, "DELETE FROM reservation_history WHERE to_status = 'CANCELLED'"),
    (HISTORY, "DELETE FROM reservation_history"),
    (LINES, "UPDATE reservations SET line_count = 3 WHERE line_count = 2"),
    (LINES, "UPDATE reservation_lines SET held_until = NULL WHERE held_until IS NOT NULL"),
    (LINES, "UPDATE reservation_lines SET held_until = held_until + interval '1 s'"),
    (LINES, "UPDATE reservation_lines SET held_until = now() WHERE held_until IS NULL"),
    (
        OVERDUE,
        "UPDATE reservations SET expires_at = now() - interval '1 day' WHERE line_count = 1 AND status = 'PENDING'",
    ),
]


@pytest.mark.parametrize(("invariant", "statement"), VIOLATIONS)
def test_a_violation_is_found_and_no_other(used: Db, invariant: str, statement: str) -> None:
    execute(used, statement)

    assert list(violations(used)) == [invariant]
