"""bin/doctor: it prints a line for each invariant, and its exit code says whether all of them hold."""

import json
from contextlib import nullcontext
from pathlib import Path

import pytest

from deploy.embedded import PostgreSQL
from domain.invariants import INVARIANTS, schema
from domain.invariants.guests import keyed_by
from domain.invariants.invariant import NAMED
from domain.invariants.outbox import routed_only
from domain.runtime.schema import read_schema
from tests.domain.invariants import (
    test_audit,
    test_bookings,
    test_calendars,
    test_feed,
    test_items,
    test_outbox,
    test_reservations,
)
from tests.support.audit import last_hash, sealed
from tests.support.broken_tables import missing
from tests.support.builders import Db, an_item
from tests.support.commands import a_routes_file, on_one_line, run_command
from tests.support.invariants import a_used_database, execute, used_calendars, with_constraint_put_back

pytestmark = pytest.mark.slow

ROUTED = routed_only([]).title
KEYED = keyed_by(None).title
TITLES = [schema.TITLE, *(invariant.title for invariant in INVARIANTS), ROUTED, KEYED]

#: One violation of each invariant.
OF_CALENDARS = dict(test_calendars.VIOLATIONS)
VIOLATIONS = (
    dict([*test_items.VIOLATIONS, *test_reservations.VIOLATIONS, *test_outbox.VIOLATIONS, *test_feed.VIOLATIONS])
    | dict(test_audit.VIOLATIONS)
    | dict(test_bookings.VIOLATIONS)
    | OF_CALENDARS
)


@pytest.fixture
def used(db: Db) -> Db:
    return a_used_database(db)


@pytest.fixture
def routes(tmp_path: Path) -> str:
    """A routes file with the destinations of these tests."""
    return a_routes_file(tmp_path, "events", "confirmation")


def failures(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith("FAIL")]


def test_every_invariant_has_a_violation_here() -> None:
    assert set(VIOLATIONS) == {invariant.title for invariant in INVARIANTS}


def test_in_an_empty_database_every_invariant_is_ok(db: Db) -> None:
    run = run_command("doctor")

    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.splitlines() == [f"ok    {title}" for title in TITLES]


def test_in_a_used_database_every_invariant_is_ok(used: Db, routes: str) -> None:
    run = run_command("doctor", HOLDFAST_ROUTES=routes)

    assert run.returncode == 0, run.stdout


@pytest.mark.parametrize(("invariant", "statement"), VIOLATIONS.items())
def test_a_violated_invariant_is_printed_and_the_exit_code_is_1(
    db: Db, routes: str, invariant: str, statement: str
) -> None:
    used = used_calendars(db) if invariant in OF_CALENDARS else a_used_database(db)
    with with_constraint_put_back(used) if invariant in OF_CALENDARS else nullcontext():
        execute(used, statement)
        run = run_command("doctor", HOLDFAST_ROUTES=routes)

    assert run.returncode == 1
    assert [line.split("; ")[0] for line in failures(run.stdout)] == [f"FAIL  {invariant}"]
    assert len(run.stdout.splitlines()) == len(TITLES)


def test_each_check_can_be_explained_by_what_it_would_not_find(db: Db) -> None:
    run = run_command("doctor", "--explain")

    assert run.returncode == 0
    for invariant in INVARIANTS:
        assert f"ok {invariant.title} Not found: {invariant.misses}" in on_one_line(run.stdout)


def test_the_findings_can_be_read_as_json(used: Db, routes: str) -> None:
    execute(used, next(statement for title, statement in test_items.VIOLATIONS if title == test_items.STOCK))

    run = run_command("doctor", "--json", HOLDFAST_ROUTES=routes)

    assert run.returncode == 1
    printed = json.loads(run.stdout)
    assert printed["ok"] is False
    assert [one["title"] for one in printed["findings"]] == TITLES
    (violated,) = [one for one in printed["findings"] if one["violations"]]
    assert violated["title"] == test_items.STOCK
    assert "ROOM-101" in violated["named"]
    assert all(one["misses"] for one in printed["findings"][1:])


def test_a_destination_that_was_removed_from_the_routes_with_pending_events_is_named_with_advice(
    used: Db, tmp_path: Path
) -> None:
    run = run_command("doctor", HOLDFAST_ROUTES=a_routes_file(tmp_path, "confirmation"))

    (line,) = failures(run.stdout)
    assert run.returncode == 1
    assert line.startswith(f"FAIL  {ROUTED}; 1 violation: events (")
    assert "HOLDFAST_ROUTES" in line and 'url = "null:"' in line


def test_a_destination_without_pending_events_may_be_removed_from_the_routes(used: Db, tmp_path: Path) -> None:
    execute(
        used,
        "UPDATE outbox SET processed_at = now() WHERE destination = 'events' AND id % 2 = 0",
        "UPDATE outbox SET dead_at = now() WHERE destination = 'events' AND id % 2 = 1",
    )

    assert run_command("doctor", HOLDFAST_ROUTES=a_routes_file(tmp_path, "confirmation")).returncode == 0


def test_the_events_of_a_removed_destination_can_be_dropped_as_the_advice_says(used: Db, tmp_path: Path) -> None:
    put_back = Path(a_routes_file(tmp_path, "events", "confirmation"))
    put_back.write_text(put_back.read_text().replace('"null:"', '"null:"\nevents = []'))

    processed = run_command("process-outbox", HOLDFAST_ROUTES=str(put_back))

    assert processed.returncode == 0
    assert run_command("doctor", HOLDFAST_ROUTES=a_routes_file(tmp_path, "other")).returncode == 0


def test_the_first_few_violations_are_named_and_the_others_counted(db: Db) -> None:
    for number in range(NAMED + 2):
        an_item(db, sku=f"SKU-{number}")
    execute(db, "UPDATE items SET available_quantity = 0")

    (line,) = failures(run_command("doctor").stdout)

    assert line.count("SKU-") == NAMED
    assert line.endswith(" and 2 more")


def test_a_sku_never_controls_the_terminal(db: Db) -> None:
    an_item(db, sku="SKU\x1b[31m")
    execute(db, "UPDATE items SET available_quantity = 0")

    (line,) = failures(run_command("doctor").stdout)

    assert line.endswith("; 1 violation: SKU [31m")


@pytest.mark.parametrize(
    ("stored", "advice"), [("0001", "Run bin/migrate."), ("9999", "A newer release has migrated it: use bin/doctor of")]
)
def test_a_schema_that_does_not_serve_this_release_is_all_that_is_said(used: Db, stored: str, advice: str) -> None:
    with used.begin() as session:
        before = read_schema(session)
    assert before is not None
    execute(used, f"UPDATE alembic_version SET version_num = '{stored}', serves_from = '{stored}'")
    try:
        run = run_command("doctor")
    finally:
        execute(used, "UPDATE alembic_version SET version_num = '{}', serves_from = '{}'".format(*before))

    (line,) = run.stdout.splitlines()
    assert run.returncode == 1
    assert line.startswith(f"FAIL  {schema.TITLE}; 1 violation: it is at {stored}. {advice}")
    assert line.endswith("Nothing else was checked.")


def test_a_schema_that_lacks_a_table_is_all_that_is_said(used: Db) -> None:
    with missing(used, "calendar_occupancies"):
        run = run_command("doctor")

    assert run.returncode == 1
    assert run.stdout == f"FAIL  {schema.TITLE}; 1 violation: calendar_occupancies. {schema.INCOMPLETE}\n"


def test_an_empty_database_is_not_migrated(postgresql: PostgreSQL) -> None:
    run = run_command("doctor", DATABASE_URL=postgresql.create("bare"))

    assert (run.returncode, run.stderr) == (1, "")
    assert run.stdout == f"FAIL  {schema.TITLE}; 1 violation: it is at base. {schema.MIGRATE}\n"


def test_a_database_that_can_not_be_reached_is_not_reported_as_ok() -> None:
    run = run_command("doctor", DATABASE_URL="postgresql://nobody@127.0.0.1:1/nothing")

    assert run.returncode == 1
    assert run.stdout == ""
    assert "can't be reached" in run.stderr and "Check DATABASE_URL" in run.stderr and "Traceback" not in run.stderr


def test_the_last_hash_of_the_audit_is_shown_to_be_kept_elsewhere(used: Db, routes: str) -> None:
    sealed(used, 3)

    run = run_command("doctor", HOLDFAST_ROUTES=routes)
    printed = json.loads(run_command("doctor", "--json", HOLDFAST_ROUTES=routes).stdout)

    assert (run.returncode, printed["audit"]) == (0, {"number": 1, "hash": last_hash(used)})
    assert run.stdout.splitlines()[-1] == f"The audit has 1 seal. Keep its last hash elsewhere: {last_hash(used)}"
