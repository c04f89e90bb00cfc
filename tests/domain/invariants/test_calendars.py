"""The invariants of calendars: nothing is taken beyond the capacity, and what is taken is what reservations say."""

import re
from collections.abc import Iterator

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from domain import calendars, items, reservations
from domain.calendars.table import TIME_IS_EXCLUSIVE
from domain.invariants.calendars import INVARIANTS
from domain.invariants.invariant import find
from domain.items import Item
from domain.reservations.lifecycle import Status
from domain.runtime.settings import ROOT
from tests.support.builders import Db, a_time_hold, hours, routes_of
from tests.support.invariants import Violation, execute, used_calendars, violations, with_constraint_put_back

CAPACITY, OCCUPIED, FREED, HELD, EXCLUSIVE, CONSTRAINT = (invariant.title for invariant in INVARIANTS)
ADVICE = {invariant.title: invariant.advice for invariant in INVARIANTS}

OPERATING = (ROOT / "docs/operating.md").read_text()

#: The reservations of the used calendars with that note.
IDS = "(SELECT id FROM reservations WHERE note = '{}')"


def of(note: str) -> str:
    return f"reservation_id IN {IDS.format(note)}"


#: After that, the buffers of no reservation need be those of its calendar.
CHANGED_SINCE = "UPDATE items SET updated_at = now() + interval '1 h';"

VIOLATIONS: list[Violation] = [
    (CAPACITY, "UPDATE items SET capacity = 2 WHERE sku = 'ROOMS'"),
    (
        CAPACITY,
        f"{CHANGED_SINCE} UPDATE calendar_occupancies SET blocked_until = blocked_until + interval '1 s'"
        f" WHERE {of('morning')}",
    ),
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
        OCCUPIED,
        f"UPDATE calendar_occupancies SET blocked_until = blocked_until - interval '1 min' WHERE {of('buffer')}",
    ),
    (OCCUPIED, f"UPDATE calendar_occupancies SET blocked_from = blocked_from - interval '1 min' WHERE {of('morning')}"),
    (
        OCCUPIED,
        f"{CHANGED_SINCE} UPDATE calendar_occupancies SET blocked_from = blocked_from - interval '24 h 1 s'"
        f" WHERE {of('buffer')}",
    ),
    (
        OCCUPIED,
        f"{CHANGED_SINCE} UPDATE calendar_occupancies SET blocked_until = blocked_until + interval '24 h 1 s'"
        f" WHERE {of('block')}",
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
    (EXCLUSIVE, f"UPDATE calendar_occupancies SET is_exclusive = false WHERE {of('buffer')}"),
    (CONSTRAINT, f"ALTER TABLE calendar_occupancies DROP CONSTRAINT {TIME_IS_EXCLUSIVE}"),
]


@pytest.fixture
def used(db: Db) -> Iterator[Db]:
    with with_constraint_put_back(db):
        yield used_calendars(db)


def test_every_invariant_holds_with_calendars_in_use(used: Db) -> None:
    assert violations(used) == {}


@pytest.mark.parametrize(("invariant", "statement"), VIOLATIONS)
def test_a_violation_is_found_and_no_other(used: Db, invariant: str, statement: str) -> None:
    execute(used, statement)

    assert list(violations(used)) == [invariant]


def test_what_is_above_the_capacity_is_named_with_its_first_moment(used: Db) -> None:
    execute(used, "UPDATE items SET capacity = 1 WHERE sku = 'ROOMS'")

    with used.begin() as session:
        found = list(find(session, INVARIANTS[0]))

    assert found == ["ROOMS from 2030-05-03T10:00:00Z on"]


def test_what_was_above_the_capacity_before_now_is_history(used: Db) -> None:
    """The capacity may be less than it was. What began before and lasts until later counts from now on."""
    for table, start, end in (
        ("calendar_occupancies", "blocked_from", "blocked_until"),
        ("reservations", "starts_at", "ends_at"),
        ("reservation_lines", "starts_at", "ends_at"),
    ):
        execute(used, f"UPDATE {table} SET {start} = {start} - interval '20 y', {end} = {end} - interval '20 y'")
    execute(used, "UPDATE items SET capacity = 2 WHERE sku = 'ROOMS'")

    assert violations(used) == {}

    execute(
        used,
        f"UPDATE calendar_occupancies SET blocked_until = now() + interval '1 h' WHERE {of('block')}",
        "UPDATE reservations SET ends_at = now() + interval '1 h' WHERE note = 'block'",
    )

    assert list(violations(used)) == [CAPACITY]


def test_time_that_was_taken_before_the_buffers_were_changed_keeps_its_buffers(used: Db) -> None:
    with used.begin() as session:
        calendars.amend(session, "LOT", buffer_before_seconds=900, buffer_after_seconds=0)

    assert violations(used) == {}


BY_HAND = "UPDATE reservations SET {}, version = version + 1 WHERE note = '{}'"


@pytest.mark.parametrize(
    ("invariant", "statement"),
    [
        (FREED, BY_HAND.format("status = 'CANCELLED'", "morning")),
        (FREED, BY_HAND.format("starts_at = NULL, ends_at = NULL", "block")),
        *(violation for violation in VIOLATIONS if violation[0] in (FREED, CONSTRAINT)),
        (HELD, BY_HAND.format("status = 'CONFIRMED'", "two lines")),
        (HELD, BY_HAND.format("expires_at = expires_at + interval '1 h'", "afternoon")),
    ],
)
def test_what_is_wrong_is_repaired_by_the_statement_of_the_advice(used: Db, invariant: str, statement: str) -> None:
    execute(used, statement)
    assert invariant in violations(used)

    execute(used, ADVICE[invariant].split(" by this: ")[1])

    assert of_calendars(used) == {}
    with used.begin() as session:
        assert session.execute(text("SELECT count(*) FROM calendar_occupancies")).scalar_one() > 5


@pytest.mark.parametrize("statement", [statement for invariant, statement in VIOLATIONS if invariant == OCCUPIED])
def test_time_that_does_not_agree_with_its_reservation_is_written_anew_as_the_documentation_says(
    used: Db, statement: str
) -> None:
    execute(used, statement)

    rewrite(used, *of_calendars(used)[OCCUPIED])

    assert violations(used) == {}


def test_time_that_somebody_else_has_taken_is_not_written_anew_before_one_of_the_two_is_cancelled(used: Db) -> None:
    execute(used, f"DELETE FROM calendar_occupancies WHERE {of('buffer')}")
    a_time_hold(used, the_item(used, "LOT"), hours(8, 9), note="the other")

    with pytest.raises(IntegrityError, match=TIME_IS_EXCLUSIVE):
        rewrite(used, *of_calendars(used)[OCCUPIED])
    cancel(used, "the other")
    rewrite(used, *of_calendars(used)[OCCUPIED])

    assert violations(used) == {}


def test_too_much_is_taken_until_a_reservation_is_cancelled_or_the_capacity_is_raised(used: Db) -> None:
    execute(used, "UPDATE items SET capacity = 2 WHERE sku = 'ROOMS'")
    for note in ("afternoon", "no end", "block"):
        cancel(used, note)
    assert violations(used) == {}

    execute(used, "UPDATE items SET capacity = 1 WHERE sku = 'ROOMS'")
    assert CAPACITY in violations(used)
    with used.begin() as session:
        calendars.amend(session, "ROOMS", capacity=3)
    assert violations(used) == {}


def test_time_becomes_exclusive_when_the_capacity_becomes_1_and_when_it_is_set_once_more(used: Db) -> None:
    with used.begin() as session:
        calendars.amend(session, "LOT", capacity=2)
    a_time_hold(used, the_item(used, "LOT"), hours(14, 15))
    for _ in range(2):
        with used.begin() as session:
            calendars.amend(session, "LOT", capacity=1)
        assert violations(used) == {}
        execute(used, "UPDATE calendar_occupancies SET is_exclusive = false")
        assert list(violations(used)) == [EXCLUSIVE]


def of_calendars(db: Db) -> dict[str, list[str]]:
    """Return the violations of each invariant of calendars that is violated."""
    with db.begin() as session:
        found = {one.title: list(find(session, one)) for one in INVARIANTS}
    return {title: named for title, named in found.items() if named}


def rewrite(db: Db, *reservation_ids: str) -> None:
    """Execute the statement of the documentation for these reservations."""
    (statement,) = re.findall(
        r"^```sql\n(INSERT INTO calendar_occupancies.*?)^```", OPERATING, re.MULTILINE | re.DOTALL
    )
    named = ", ".join(f"'{one}'" for one in reservation_ids)
    execute(db, statement.replace("'RESERVATION_ID', 'RESERVATION_ID'", named))


def the_item(db: Db, sku: str) -> Item:
    with db() as session:
        return items.get(session, sku)


def cancel(db: Db, note: str) -> None:
    with db.begin() as session:
        reservation_id = session.execute(text(IDS.format(note))).scalar_one()
        reservations.change(session, reservation_id, Status.CANCELLED, routes=routes_of(db))
