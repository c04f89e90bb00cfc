"""The invariants of calendars: nothing is taken beyond the capacity, and what is taken is what reservations say."""

import pytest
from sqlalchemy import text

from domain.invariants.calendars import INVARIANTS
from tests.support.builders import Db
from tests.support.invariants import Violation, execute, used_calendars, violations

CAPACITY, OCCUPIED, FREED, HELD = (invariant.title for invariant in INVARIANTS)
ADVICE = {invariant.title: invariant.advice for invariant in INVARIANTS}

#: The reservations of the used calendars with that note.
IDS = "(SELECT id FROM reservations WHERE note = '{}')"


def of(note: str) -> str:
    return f"reservation_id IN {IDS.format(note)}"


VIOLATIONS: list[Violation] = [
    (CAPACITY, "UPDATE items SET capacity = 2 WHERE sku = 'ROOMS'"),
    (CAPACITY, f"UPDATE calendar_occupancies SET blocked_until = blocked_until + interval '1 s' WHERE {of('morning')}"),
    (OCCUPIED, f"DELETE FROM calendar_occupancies WHERE {of('morning')}"),
    (OCCUPIED, f"DELETE FROM calendar_occupancies WHERE position = 2 AND {of('two lines')}"),
    (OCCUPIED, f"DELETE FROM calendar_occupancies WHERE {of('COMPLETED')}"),
    (OCCUPIED, f"UPDATE calendar_occupancies SET units = 2 WHERE {of('morning')}"),
    (OCCUPIED, f"UPDATE calendar_occupancies SET item_id = 99 WHERE {of('morning')}"),
    (OCCUPIED, f"UPDATE calendar_occupancies SET blocked_from = blocked_from + interval '1 s' WHERE {of('morning')}"),
    (
        OCCUPIED,
        f"UPDATE calendar_occupancies SET blocked_until = blocked_until - interval '31 min' WHERE {of('buffer')}",
    ),
    (
        FREED,
        "INSERT INTO calendar_occupancies SELECT id, 1, item_id, 1, starts_at, ends_at, NULL, false"
        " FROM reservations WHERE note = 'CANCELLED'",
    ),
    (
        FREED,
        "INSERT INTO calendar_occupancies SELECT id, 2, item_id, 1, starts_at, ends_at, expires_at, false"
        " FROM reservations WHERE note = 'morning'",
    ),
    (HELD, f"UPDATE calendar_occupancies SET held_until = NULL WHERE {of('afternoon')}"),
    (HELD, f"UPDATE calendar_occupancies SET held_until = now() + interval '1 day' WHERE {of('morning')}"),
    (HELD, f"UPDATE calendar_occupancies SET held_until = held_until + interval '1 s' WHERE {of('two lines')}"),
]


@pytest.fixture
def used(db: Db) -> Db:
    return used_calendars(db)


def test_every_invariant_holds_with_calendars_in_use(used: Db) -> None:
    assert violations(used) == {}


@pytest.mark.parametrize(("invariant", "statement"), VIOLATIONS)
def test_a_violation_is_found_and_no_other(used: Db, invariant: str, statement: str) -> None:
    execute(used, statement)

    assert list(violations(used)) == [invariant]


def test_what_is_above_the_capacity_is_named_with_its_first_moment(used: Db) -> None:
    execute(used, "UPDATE items SET capacity = 1 WHERE sku = 'ROOMS'")

    with used.begin() as session:
        found = session.execute(INVARIANTS[0].violations).scalars().all()

    assert found == ["ROOMS from 2030-05-03T10:00:00Z on"]


def test_what_was_above_the_capacity_before_now_is_history(used: Db) -> None:
    """The capacity may be less than it was. What began before and lasts until later counts from now on."""
    for table, start, end in (
        ("calendar_occupancies", "blocked_from", "blocked_until"),
        ("reservations", "starts_at", "ends_at"),
        ("reservation_lines", "starts_at", "ends_at"),
    ):
        execute(used, f"UPDATE {table} SET {start} = {start} - interval '20 y', {end} = {end} - interval '20 y'")
    execute(used, "UPDATE items SET capacity = 1 WHERE sku = 'ROOMS'")

    assert violations(used) == {}

    execute(used, f"UPDATE calendar_occupancies SET blocked_until = now() + interval '1 h' WHERE {of('block')}")

    assert list(violations(used)) == [CAPACITY]


@pytest.mark.parametrize(
    ("invariant", "statement"),
    [
        (FREED, "UPDATE reservations SET status = 'CANCELLED', version = version + 1 WHERE note = 'morning'"),
        (HELD, "UPDATE reservations SET status = 'CONFIRMED', version = version + 1 WHERE note = 'two lines'"),
        (HELD, "UPDATE reservations SET expires_at = expires_at + interval '1 h' WHERE note = 'afternoon'"),
    ],
)
def test_what_an_earlier_release_leaves_is_repaired_as_the_advice_says(
    used: Db, invariant: str, statement: str
) -> None:
    execute(used, statement)
    assert invariant in violations(used)

    execute(used, ADVICE[invariant].split(" by this: ")[1])

    with used.begin() as session:
        assert all(not session.execute(one.violations).all() for one in INVARIANTS)
        assert session.execute(text("SELECT count(*) FROM calendar_occupancies")).scalar_one() > 5
