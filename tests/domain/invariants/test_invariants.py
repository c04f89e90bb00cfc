"""The doctor: silent about what is well, and loud about each invariant that is broken."""

from pathlib import Path

import pytest
from sqlalchemy import text

from domain import reservations
from domain import invariants
from domain.invariants import INVARIANTS, NAMED
from domain.reservations.lifecycle import Status
from tests.support.builders import Db, a_hold, an_event, an_item, an_overdue_hold, recorded
from tests.support.commands import routed, turned
from tests.support.outbox import Outside, an_aggregate, relaying, recorded_for


@pytest.fixture
def house(db: Db) -> Db:
    """A database with a bit of everything in it, all of it well."""
    item = an_item(db, quantity=50, sku="ROOM-101")
    held, kept, gone, lapsed = (a_hold(db, item, quantity=2) for _ in range(4))
    with db.begin() as session:
        reservations.change(session, kept.id, Status.CONFIRMED)
        reservations.change(session, kept.id, Status.COMPLETED)
        reservations.change(session, gone.id, Status.CANCELLED)
    an_overdue_hold(db, item)
    assert held.id != lapsed.id
    return db


def broken(db: Db, *statements: str) -> None:
    with db.begin() as session:
        for statement in statements:
            session.execute(text(statement))


def findings(db: Db) -> dict[str, int]:
    """How many break each invariant that is broken."""
    with db.begin() as session:
        return {finding.says: finding.broken for finding in invariants.examine(session) if finding.broken}


SERVED = check.served_by([]).says


@pytest.fixture
def routes(tmp_path: Path) -> str:
    """A routes file with the destinations of these tests."""
    return routed(tmp_path, "events", "confirmation")


def test_an_empty_database_is_well(db: Db) -> None:
    run = turned("doctor")

    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.splitlines() == [f"ok    {invariant}" for invariant in (*(invariant.says for invariant in INVARIANTS), SERVED)]


def test_a_house_in_order_is_well(house: Db, routes: str) -> None:
    run = turned("doctor", HOLDFAST_ROUTES=routes)

    assert run.returncode == 0, run.stdout
    assert findings(house) == {}


STOCK, HISTORY, ORDER, HOME, LANES, LEASES, STUCK, OVERDUE = (invariant.says for invariant in INVARIANTS)

BREAKS = [
    (STOCK, "UPDATE items SET available_quantity = available_quantity - 1"),
    (STOCK, "UPDATE items SET stock_quantity = stock_quantity + 1"),
    (STOCK, "UPDATE reservations SET quantity = quantity + 1 WHERE status = 'COMPLETED'"),
    (HISTORY, "UPDATE reservations SET version = version + 1 WHERE status = 'CANCELLED'"),
    (HISTORY, "UPDATE reservations SET status = 'CONFIRMED' WHERE status = 'COMPLETED'"),
    (HISTORY, "DELETE FROM reservation_history WHERE to_status = 'CANCELLED'"),
    (HISTORY, "DELETE FROM reservation_history"),
    (
        ORDER,
        "UPDATE outbox SET processed_at = now() WHERE type = 'booking.cancelled'",
    ),
    (
        HOME,
        "DELETE FROM outbox_lanes WHERE destination = 'events'; DELETE FROM outbox_destinations WHERE name = 'events'",
    ),
    (LANES, "DELETE FROM outbox_lanes WHERE lane = 31; UPDATE outbox SET processed_at = now()"),
    (LEASES, "UPDATE outbox_lanes SET leased_until = now() + interval '1 hour' WHERE lane = 3"),
    (STUCK, "UPDATE outbox SET created_at = now() - interval '11 minutes' WHERE destination = 'events'"),
    (OVERDUE, "UPDATE reservations SET expires_at = now() - interval '11 minutes' WHERE status = 'PENDING'"),
]


@pytest.mark.parametrize(("invariant", "statement"), BREAKS)
def test_a_law_that_is_broken_is_found_and_no_other(house: Db, invariant: str, statement: str) -> None:
    broken(house, statement)

    assert list(findings(house)) == [invariant]


@pytest.mark.parametrize(("invariant", "statement"), dict(BREAKS).items())
def test_a_law_that_is_broken_is_printed_and_the_exit_says_so(house: Db, routes: str, invariant: str, statement: str) -> None:
    broken(house, statement)

    run = turned("doctor", HOLDFAST_ROUTES=routes)

    assert run.returncode == 1
    assert [line.split(": not ")[0] for line in run.stdout.splitlines() if line.startswith("FAIL")] == [f"FAIL  {invariant}"]
    assert len(run.stdout.splitlines()) == len(INVARIANTS) + 1


def test_a_destination_that_left_the_routes_with_promises_to_keep_is_named_with_what_to_do(
    house: Db, tmp_path: Path
) -> None:
    run = turned("doctor", HOLDFAST_ROUTES=routed(tmp_path, "confirmation"))

    (line,) = [line for line in run.stdout.splitlines() if line.startswith("FAIL")]
    assert run.returncode == 1
    assert line.startswith(f"FAIL  {SERVED}: not events (")
    assert "HOLDFAST_ROUTES" in line and 'url = "null:"' in line


def test_a_destination_that_left_the_routes_with_nothing_pending_is_well(house: Db, tmp_path: Path) -> None:
    broken(
        house,
        "UPDATE outbox SET processed_at = now() WHERE destination = 'events' AND id % 2 = 0",
        "UPDATE outbox SET dead_at = now() WHERE destination = 'events' AND id % 2 = 1",
    )

    assert turned("doctor", HOLDFAST_ROUTES=routed(tmp_path, "confirmation")).returncode == 0


def test_what_left_the_routes_can_be_let_go_of_as_the_doctor_says(house: Db, tmp_path: Path) -> None:
    put_back = Path(routed(tmp_path, "events", "confirmation"))
    put_back.write_text(put_back.read_text().replace('"null:"', '"null:"\nevents = []'))

    drained = turned("process-outbox", HOLDFAST_ROUTES=str(put_back))

    assert drained.returncode == 0
    assert turned("doctor", HOLDFAST_ROUTES=routed(tmp_path, "other")).returncode == 0


def test_the_first_few_culprits_are_named_and_the_rest_counted(db: Db) -> None:
    for number in range(NAMED + 2):
        an_item(db, sku=f"SKU-{number}")
    broken(db, "UPDATE items SET available_quantity = 0")

    (line,) = [line for line in turned("doctor").stdout.splitlines() if line.startswith("FAIL")]

    assert line.count("SKU-") == NAMED
    assert line.endswith(" and 2 more")


def test_a_promise_may_leave_before_one_that_died_or_one_of_another_aggregate(db: Db) -> None:
    recorded(db, *(an_event(one) for one in (an_aggregate(), an_aggregate())))
    broken(db, "UPDATE outbox SET processed_at = now() WHERE id = 2")
    assert findings(db) == {}

    aggregate = an_aggregate()
    recorded(db, *(an_event(aggregate) for _ in range(3)))
    broken(
        db,
        "UPDATE outbox SET dead_at = now() WHERE id = 3",
        "UPDATE outbox SET processed_at = now() WHERE id = 4",
    )
    assert findings(db) == {}


REPLAYED_LATELY = "UPDATE outbox SET replayed_at = now() - interval '1 second' WHERE processed_at IS NULL"
REPLAYED_LONG_AGO = "UPDATE outbox SET replayed_at = now() - interval '3 minutes' WHERE processed_at IS NULL"


@pytest.mark.parametrize(("replayed", "broken_law"), [(REPLAYED_LATELY, []), (REPLAYED_LONG_AGO, [ORDER])])
def test_what_left_before_an_earlier_promise_was_replayed_overtook_nothing(
    house: Db, replayed: str, broken_law: list[str]
) -> None:
    broken(house, "UPDATE outbox SET processed_at = now() WHERE type = 'booking.cancelled'", replayed)

    assert list(findings(house)) == broken_law


def test_what_was_replayed_and_nobody_delivers_is_stuck_after_a_while(house: Db) -> None:
    replayed = "UPDATE outbox SET created_at = '2020-01-01', replayed_at = now() - interval '{0}', available_at = {1}"
    broken(house, replayed.format("9 minutes", "NULL"))
    assert findings(house) == {}

    broken(house, replayed.format("11 minutes", "now() - interval '11 minutes'"))
    assert list(findings(house)) == [STUCK]


@pytest.mark.parametrize(
    "excuse",
    [
        "UPDATE outbox_destinations SET paused = true",
        "UPDATE outbox_destinations SET failures = 1",
        "UPDATE outbox_destinations SET recovered_at = now()",
        "UPDATE outbox SET attempts = 1",
        "UPDATE outbox SET available_at = now()",
    ],
)
def test_a_promise_that_may_not_leave_is_not_stuck(house: Db, excuse: str) -> None:
    broken(house, "UPDATE outbox SET created_at = now() - interval '11 minutes'", excuse)

    assert findings(house) == {}


def test_a_drained_outbox_is_well(db: Db) -> None:
    with relaying(db, Outside()) as drain:
        recorded_for(relay.db, *(an_aggregate(lane) for lane in range(5)))
        relay.run()

    assert findings(db) == {}


def test_a_database_that_can_not_be_examined_is_no_clean_bill() -> None:
    run = turned("doctor", DATABASE_URL="postgresql://nobody@127.0.0.1:1/nothing")

    assert run.returncode == 1
    assert run.stdout == ""
    assert "can't be reached" in run.stderr and "Check DATABASE_URL" in run.stderr and "Traceback" not in run.stderr
