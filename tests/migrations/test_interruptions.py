"""bin/migrate beside itself, beside long transactions, and interrupted: it waits for its turn, and is run again."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import func, select, text

from domain.runtime.schema import SCHEMA_VERSION
from migrations import locks
from tests.migrations.databases import (
    PLANTED,
    REVISIONS,
    catalogue,
    command,
    connected,
    downgrade,
    migrate,
    planted,
    read,
    upgrade,
)
from tests.migrations.review import StoppedError, interrupted
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

INDEXES = """
with op.get_context().autocommit_block():
    op.execute("CREATE INDEX CONCURRENTLY IF NOT EXISTS planted ON outbox (created_at)")
    op.execute("CREATE INDEX CONCURRENTLY IF NOT EXISTS planted_too ON outbox (attempts)")
"""

COLUMN = 'op.execute("ALTER TABLE outbox ADD COLUMN planted text")'

MIGRATED = f"The schema was taken from {SCHEMA_VERSION} to {PLANTED}.\n"


@contextmanager
def an_old_snapshot(url: str) -> Iterator[None]:
    """A transaction that began earlier and has not ended, such as a dump: no concurrent build ends before it."""
    with connected(url) as connection:
        connection.execute(text("BEGIN ISOLATION LEVEL REPEATABLE READ"))
        connection.execute(text("SELECT FROM items"))
        yield
        connection.execute(text("ROLLBACK"))


@contextmanager
def a_reader(url: str) -> Iterator[None]:
    """A transaction that has read the outbox and has not ended."""
    with connected(url) as connection:
        connection.execute(text("SET application_name = 'a report'"))
        connection.execute(text("BEGIN"))
        connection.execute(text("SELECT FROM outbox"))
        yield
        connection.execute(text("ROLLBACK"))


def is_building(url: str) -> bool:
    """Return whether a concurrent build waits for old snapshots."""
    return bool(read(url, "SELECT FROM pg_stat_progress_create_index WHERE phase = 'waiting for old snapshots'"))


def validity(url: str) -> dict[str, bool]:
    """Return which of the planted indexes there are, and whether they are valid."""
    indexes = "SELECT indexrelid::regclass::text, indisvalid FROM pg_index"
    return dict(read(url, f"{indexes} WHERE indexrelid::regclass::text LIKE 'planted%'"))


def version(url: str) -> str:
    ((found,),) = read(url, "SELECT version_num FROM alembic_version")
    return str(found)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_concurrent_build_that_is_interrupted_is_repaired_by_the_next_run(
    migrated: str, tmp_path: Path, number: signal.Signals
) -> None:
    scripts = planted(tmp_path, body=INDEXES)

    with an_old_snapshot(migrated):
        process = command(migrated, scripts=scripts)
        wait_until("an index is being built", lambda: is_building(migrated))
        process.send_signal(number)
        output, errors = process.communicate(timeout=60)
        left = validity(migrated), version(migrated)
        again = command(migrated, scripts=scripts)
        wait_until("the next run waits", lambda: is_building(migrated) or is_waiting_for_its_turn(migrated))
    again_output, again_errors = again.communicate(timeout=60)

    assert left == ({"planted": False}, REVISIONS[0])
    if number is not signal.SIGKILL:
        assert (process.returncode, output) == (1, "")
        assert errors.startswith("Stopped. ") and errors.endswith(" Run it again for the rest.\n"), errors
    assert again.returncode == 0, again_errors
    assert again_output == MIGRATED
    assert (validity(migrated), version(migrated)) == ({"planted": True, "planted_too": True}, PLANTED)


def is_waiting_for_its_turn(url: str) -> bool:
    waiting = "SELECT FROM pg_stat_activity WHERE query LIKE 'SELECT pg_try_advisory_lock%' AND state = 'idle'"
    return bool(read(url, f"{waiting} AND datname = current_database()"))


def test_a_run_that_waits_for_another_one_does_not_keep_it_from_building_an_index(
    migrated: str, tmp_path: Path
) -> None:
    scripts = planted(tmp_path, body=INDEXES)

    with an_old_snapshot(migrated):
        first = command(migrated, scripts=scripts)
        wait_until("an index is being built", lambda: is_building(migrated))
        second = command(migrated, scripts=scripts)
        wait_until("the second one waits", lambda: is_waiting_for_its_turn(migrated))
    ends = [process.communicate(timeout=60) for process in (first, second)]

    assert [process.returncode for process in (first, second)] == [0, 0], ends
    assert (validity(migrated), version(migrated)) == ({"planted": True, "planted_too": True}, PLANTED)


def test_a_run_that_waits_for_another_one_says_so(migrated: str) -> None:
    with connected(migrated) as connection:
        connection.execute(select(func.pg_advisory_lock(locks.ADVISORY_LOCK)))
        ((pid,),) = connection.execute(text("SELECT pg_backend_pid()")).all()
        process = command(migrated)
        assert process.stderr is not None
        line = process.stderr.readline()
    output, errors = process.communicate(timeout=60)

    assert line.startswith(f"Another migration (process {pid} of PostgreSQL, connected since ")
    assert (process.returncode, output, errors) == (
        0,
        f"The schema is at {SCHEMA_VERSION} already. Nothing was changed.\n",
        "",
    )


def test_a_migration_that_meets_a_long_transaction_is_tried_again(migrated: str, tmp_path: Path) -> None:
    with a_reader(migrated):
        process = command(migrated, scripts=planted(tmp_path, body=COLUMN))
        wait_until("the first attempt has ended", lambda: has_given_up_once(migrated))
    _, errors = process.communicate(timeout=60)

    assert (process.returncode, errors) == (0, "")
    assert version(migrated) == PLANTED


def test_a_migration_that_gives_up_names_the_transaction_and_changes_nothing(migrated: str, tmp_path: Path) -> None:
    with a_reader(migrated):
        process = command(migrated, scripts=planted(tmp_path, body=COLUMN))
        output, errors = process.communicate(timeout=120)

    assert (process.returncode, output, version(migrated)) == (1, "", REVISIONS[0])
    assert errors.startswith("A migration did not get a lock (") and "lock timeout" in errors
    assert "(a report, for " in errors and errors.endswith(" Wait for them or end them, and run it again.\n")


def has_given_up_once(url: str) -> bool:
    """Return whether the migration whose turn it is has ended a transaction without committing it."""
    return bool(
        read(
            url,
            "SELECT FROM pg_locks JOIN pg_stat_activity USING (pid)"
            " WHERE datname = current_database() AND locktype = 'advisory' AND state = 'idle' AND query = 'ROLLBACK'",
        )
    )


def test_a_request_that_locks_the_same_two_tables_in_the_other_order_is_not_ended(url: str) -> None:
    """It waits for less than the second after which PostgreSQL would look for a deadlock."""
    upgrade(url, "0007")
    with connected(url) as request:
        request.execute(text("SET lock_timeout = '900ms'"))
        request.execute(text("BEGIN"))
        request.execute(text("UPDATE items SET name = name"))
        process = command(url, "0008")
        wait_until("the migration waits for the items", lambda: is_waiting_for_the_items(url))
        request.execute(text("UPDATE reservation_lines SET quantity = quantity"))
        request.execute(text("COMMIT"))
    _, errors = process.communicate(timeout=60)

    assert (process.returncode, errors, version(url)) == (0, "", "0008")
    validated = "SELECT convalidated FROM pg_constraint WHERE conname = 'fk_reservation_lines_item_id'"
    assert read(url, validated) == [(True,)]


def test_a_way_back_that_was_interrupted_is_reported_and_is_ended_by_the_next_run(migrated: str) -> None:
    downgrade(migrated, "0009")
    with pytest.raises(StoppedError), interrupted(after=2):
        downgrade(migrated, "0008")

    forth = migrate(migrated)
    repaired = migrate(migrated, "0008"), migrate(migrated)

    assert (forth.returncode, forth.stdout) == (1, "")
    assert forth.stderr.startswith(f"The schema is at {SCHEMA_VERSION}, but lacks calendar_occupancies, as after ")
    assert [(run.returncode, run.stderr) for run in repaired] == [(0, "")] * 2
    assert "calendar_occupancies" in {table for table, *_ in catalogue(migrated)["columns"]}


def is_waiting_for_the_items(url: str) -> bool:
    return bool(read(url, "SELECT FROM pg_locks WHERE relation = 'items'::regclass AND NOT granted"))
