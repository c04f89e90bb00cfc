"""bin/replay: delivered events are sent again, with who and why, and no answered step is."""

from contextlib import AbstractContextManager

import pytest

from domain.reservations.events import RESERVATION_CONFIRM
from tests.support.broken_tables import altered
from tests.support.builders import Db, a_hold, an_item
from tests.support.commands import on_one_line, run_command
from tests.support.operations import audited, mark_delivered
from tests.support.outbox import an_aggregate, recorded_for, row, rows, states, with_shop
from tests.support.refusals import everything

pytestmark = pytest.mark.slow

WHY = "--why=the shop lost data (OPS-7)"


@pytest.fixture
def shop(db: Db) -> Db:
    return with_shop(db)


def unable_to_replay(db: Db, row_id: int) -> AbstractContextManager[None]:
    """Let the database refuse to replay one row."""
    return altered(
        db,
        f"ALTER TABLE outbox ADD CONSTRAINT ck_outbox_test CHECK (id <> {row_id} OR replayed_at IS NULL)",
        back="ALTER TABLE outbox DROP CONSTRAINT ck_outbox_test",
    )


def test_delivered_events_are_pending_again_and_the_audit_has_who_and_why(shop: Db) -> None:
    recorded_for(shop, *(an_aggregate() for _ in range(3)))
    mark_delivered(shop, 1, 2)
    before = row(shop, 1)

    run = run_command("replay", "--destination=shop", WHY, "--who=ann@ops")

    assert run.returncode == 0 and run.stdout.startswith("2 delivered rows replayed. ")
    assert states(shop) == ["waiting", "waiting", "ready"]
    assert row(shop, 1).event_id == before.event_id and "replayed" in row(shop, 1).headers
    (done,) = audited(shop)
    assert (done.action, done.who, done.why, done.rows) == ("replay", "ann@ops", "the shop lost data (OPS-7)", 2)
    assert done.selection["among"] == "delivered"


def test_answered_steps_are_skipped_and_reported(db: Db) -> None:
    a_hold(db, an_item(db))
    mark_delivered(db, *(one.id for one in rows(db)))
    steps = [one.id for one in rows(db) if one.type == RESERVATION_CONFIRM]

    run = run_command("replay", "--all", WHY)

    assert run.returncode == 0 and run.stdout.startswith("1 answered step skipped: ")
    assert f"{len(rows(db)) - 1} delivered row" in run.stdout and len(steps) == 1
    assert states(db, *steps) == ["processed"]


def test_a_dry_run_counts_and_changes_nothing(shop: Db) -> None:
    recorded_for(shop, an_aggregate())
    mark_delivered(shop, 1)
    before = everything(shop)

    run = run_command("replay", "--all", "--dry-run")

    assert run.stdout == "1 delivered row would be replayed. Dry run. Run again with --why TEXT to apply.\n"
    assert run.returncode == 0 and everything(shop) == before


def test_without_matching_rows_nothing_is_changed(shop: Db) -> None:
    recorded_for(shop, an_aggregate())

    run = run_command("replay", "--all", WHY)

    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr == "No matching delivered rows. Nothing was changed.\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--all"], "--why is required"),
        ([WHY], "selection: it has no filter"),
        ([f"--type={RESERVATION_CONFIRM}", WHY], f"{RESERVATION_CONFIRM} is a step"),
        (["--since=2030-01-31T12:00:00", WHY], "not an RFC 3339 timestamp with UTC offset"),
        (["--error=503", WHY], "No such option '--error'"),
    ],
)
def test_wrong_usage_is_refused_and_changes_nothing(shop: Db, arguments: list[str], message: str) -> None:
    recorded_for(shop, an_aggregate())
    mark_delivered(shop, 1)
    before = everything(shop)

    run = run_command("replay", *arguments)

    assert (run.returncode, run.stdout) == (2, "")
    assert message in on_one_line(run.stderr) and "Traceback" not in run.stderr
    assert everything(shop) == before


def test_an_error_of_the_database_half_way_says_how_far_it_came_and_how_to_continue(shop: Db) -> None:
    ids = recorded_for(shop, *(an_aggregate() for _ in range(4)))
    mark_delivered(shop, *ids)

    # At 8 rows per second a batch has 2.
    with unable_to_replay(shop, 3):
        run = run_command("replay", "--all", WHY, "--rate=8")

    assert run.returncode == 1
    assert run.stdout.startswith("Stopped: 2 of 4 delivered rows replayed.") and "--before 20" in run.stdout
    assert run.stderr.startswith("The database refused a statement (") and len(run.stderr.splitlines()) == 1
    assert "The batch that failed was undone." in run.stderr
    assert states(shop) == ["waiting", "waiting", "processed", "processed"]
    assert [done.rows for done in audited(shop)] == [2]
