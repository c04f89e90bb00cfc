"""The invariant of items: their stock is the sum of what is available, held and consumed."""

import pytest

from domain.invariants.items import INVARIANTS
from tests.support.builders import Db
from tests.support.invariants import Violation, execute, violations

(STOCK,) = (invariant.title for invariant in INVARIANTS)

VIOLATIONS: list[Violation] = [
    (STOCK, "UPDATE items SET available_quantity = available_quantity - 1"),
    (STOCK, "UPDATE items SET stock_quantity = stock_quantity + 1"),
    (STOCK, "UPDATE reservations SET quantity = quantity + 1 WHERE status = 'COMPLETED'"),
    (STOCK, "UPDATE reservation_lines SET quantity = quantity + 1 WHERE held_until IS NOT NULL"),
]


@pytest.mark.parametrize(("invariant", "statement"), VIOLATIONS)
def test_a_violation_is_found_and_no_other(used: Db, invariant: str, statement: str) -> None:
    execute(used, statement)

    assert list(violations(used)) == [invariant]
