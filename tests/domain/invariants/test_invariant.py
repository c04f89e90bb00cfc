"""The check of one invariant: the first few violations are named, and all are counted."""

from domain import invariants
from domain.invariants import INVARIANTS, guests, outbox
from domain.invariants.invariant import NAMED
from tests.support.builders import Db, an_item
from tests.support.invariants import execute, violations


def test_every_invariant_holds_in_a_used_database(used: Db) -> None:
    assert violations(used) == {}


def test_every_check_says_what_it_would_not_find() -> None:
    assert all(
        invariant.misses.endswith(".") for invariant in (*INVARIANTS, outbox.routed_only([]), guests.keyed_by(None))
    )


def test_the_first_few_violations_are_named_and_all_are_counted(db: Db) -> None:
    for number in range(NAMED + 2):
        an_item(db, sku=f"SKU-{number}")
    execute(db, "UPDATE items SET available_quantity = 0")

    with db.begin() as session:
        (finding,) = [one for one in invariants.examine(session) if one.violations]

    assert finding.violations == NAMED + 2
    assert len(set(finding.named)) == NAMED and all(name.startswith("SKU-") for name in finding.named)
