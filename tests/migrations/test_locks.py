"""Migrations hold no lock for long, can be run again after an interruption, and say which older code they serve."""

from pathlib import Path

import pytest
from sqlalchemy.exc import ProgrammingError

from migrations import locks
from tests.migrations.databases import (
    MIGRATIONS,
    PLANTED,
    REVISIONS,
    before,
    planted,
    read,
    upgrade,
)
from tests.migrations.review import LockingError, StoppedError, interrupted, reviewed

pytestmark = pytest.mark.slow

#: The migrations to which these rules apply. Before the first of them, nobody ran two releases side by side.
LATER = [revision for revision in reversed(REVISIONS) if revision > "0003"]

#: No migration changes the schema in more steps outside a transaction.
MANY_CHANGES = 100


def in_a_transaction(*statements: str) -> str:
    return "\n".join(f'op.execute("{statement}")' for statement in statements)


def outside(*statements: str) -> str:
    """The same statements in an autocommit_block."""
    return "with op.get_context().autocommit_block():\n" + "\n".join(
        f'    op.execute("{statement}")' for statement in statements
    )


BAD = {
    "an index": in_a_transaction("CREATE INDEX planted ON outbox (created_at)"),
    "an index outside a transaction": outside("CREATE INDEX IF NOT EXISTS planted ON outbox (created_at)"),
    "an index that can't be built twice": outside("CREATE INDEX CONCURRENTLY planted ON outbox (created_at)"),
    "a unique constraint": in_a_transaction("ALTER TABLE outbox ADD CONSTRAINT planted UNIQUE (id, lane)"),
    "a check": in_a_transaction("ALTER TABLE reservations ADD CONSTRAINT planted CHECK (quantity < 1000)"),
    "a check that is validated at once": in_a_transaction(
        "ALTER TABLE reservations ADD CONSTRAINT planted CHECK (quantity < 1000) NOT VALID",
        "ALTER TABLE reservations VALIDATE CONSTRAINT planted",
    ),
    "a foreign key": in_a_transaction(
        "ALTER TABLE outbox ADD CONSTRAINT planted FOREIGN KEY (aggregate_id) REFERENCES reservations (id)"
    ),
    "NOT NULL": in_a_transaction("ALTER TABLE reservations ALTER COLUMN guest_id SET NOT NULL"),
    "another type": in_a_transaction("ALTER TABLE reservations ALTER COLUMN quantity TYPE bigint"),
    "a volatile default": in_a_transaction(
        "ALTER TABLE outbox ADD COLUMN planted double precision NOT NULL DEFAULT random()"
    ),
    "a generated column": in_a_transaction(
        "ALTER TABLE outbox ADD COLUMN planted int GENERATED ALWAYS AS (attempts + 1) STORED"
    ),
    "an identity": in_a_transaction("ALTER TABLE reservations ADD COLUMN planted bigint GENERATED ALWAYS AS IDENTITY"),
    "a change of every row": in_a_transaction("UPDATE reservations SET note = 'planted'"),
    "a change of every row outside a transaction": outside("UPDATE reservations SET note = 'planted'"),
    "a column outside a transaction": outside("ALTER TABLE outbox ADD COLUMN planted text"),
    "a table that is written anew": in_a_transaction("CLUSTER outbox USING pk_outbox"),
    "two tables": in_a_transaction(
        "ALTER TABLE outbox ADD COLUMN planted text", "ALTER TABLE reservations ADD COLUMN planted text"
    ),
    "two tables by a statement that waits for long": in_a_transaction(
        "ALTER TABLE reservation_lines ADD CONSTRAINT planted FOREIGN KEY (item_id) REFERENCES items (id) NOT VALID"
    ),
    "two tables, of which the second one is waited for": in_a_transaction(
        "SET LOCAL lock_timeout = '500ms'; ALTER TABLE outbox ADD COLUMN planted text",
        "ALTER TABLE reservations ADD COLUMN planted text",
    ),
    "two statements in one": outside("ANALYZE outbox; ALTER TABLE outbox ADD COLUMN planted text"),
}

GOOD = {
    "an index": outside("CREATE INDEX CONCURRENTLY IF NOT EXISTS planted ON outbox (created_at)"),
    "a unique constraint": outside("CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS planted ON outbox (id, lane)")
    + "\n"
    + in_a_transaction("ALTER TABLE outbox ADD CONSTRAINT planted UNIQUE USING INDEX planted"),
    "no index": outside("DROP INDEX CONCURRENTLY IF EXISTS ix_outbox_dead"),
    "a check": in_a_transaction("ALTER TABLE reservations ADD CONSTRAINT planted CHECK (quantity < 1000) NOT VALID")
    + "\n"
    + outside("ALTER TABLE reservations VALIDATE CONSTRAINT planted"),
    "NOT NULL after a check": in_a_transaction(
        "ALTER TABLE reservations ADD CONSTRAINT planted CHECK (source IS NOT NULL) NOT VALID"
    )
    + "\n"
    + outside("ALTER TABLE reservations VALIDATE CONSTRAINT planted")
    + "\n"
    + in_a_transaction("ALTER TABLE reservations ALTER COLUMN source SET NOT NULL"),
    "columns": in_a_transaction(
        "ALTER TABLE outbox ADD COLUMN planted text, ADD COLUMN planted_too int NOT NULL DEFAULT 7"
    ),
    "a foreign key that gives up in time": in_a_transaction(
        "SET LOCAL lock_timeout = '500ms'; ALTER TABLE reservation_lines ADD CONSTRAINT planted"
        " FOREIGN KEY (item_id) REFERENCES items (id) NOT VALID"
    )
    + "\n"
    + outside("ALTER TABLE reservation_lines VALIDATE CONSTRAINT planted"),
    "no column": in_a_transaction("ALTER TABLE reservations DROP COLUMN note"),
    "a longer type": in_a_transaction("ALTER TABLE reservations ALTER COLUMN cancelled_by TYPE varchar(300)"),
    "a table": in_a_transaction(
        "CREATE TABLE planted (id bigint PRIMARY KEY, reservation_id uuid REFERENCES reservations (id))",
        "CREATE INDEX ix_planted ON planted (reservation_id)",
        "INSERT INTO planted (id) SELECT generate_series(1, 10)",
    ),
    "a batch": outside(
        "UPDATE reservations SET note = 'planted' WHERE id IN (SELECT id FROM reservations WHERE note IS NULL LIMIT 9)"
    ),
}


def test_a_migration_waits_for_long_enough_that_an_autovacuum_in_its_way_ends_itself(url: str) -> None:
    """An autovacuum of a large table takes minutes. It is cancelled for a lock only after the deadlock_timeout."""
    waits = "SELECT CAST(:timeout AS interval) > current_setting('deadlock_timeout')::interval"

    assert read(url, waits, timeout=locks.LOCK_TIMEOUT) == [(True,)]


@pytest.mark.parametrize("body", BAD.values(), ids=BAD)
def test_a_migration_that_could_hold_a_lock_for_long_is_noticed(migrated: str, tmp_path: Path, body: str) -> None:
    scripts = planted(tmp_path, body=body)

    with pytest.raises(LockingError), reviewed():
        upgrade(migrated, scripts=scripts)


@pytest.mark.parametrize("body", GOOD.values(), ids=GOOD)
def test_a_migration_that_holds_no_lock_for_long_is_not_reported(migrated: str, tmp_path: Path, body: str) -> None:
    scripts = planted(tmp_path, body=body)

    with reviewed():
        upgrade(migrated, scripts=scripts)


@pytest.mark.parametrize("revision", LATER)
def test_no_migration_could_hold_a_lock_for_long(url: str, revision: str) -> None:
    upgrade(url, before(revision))

    with reviewed():
        upgrade(url, revision)


@pytest.mark.parametrize("revision", LATER)
def test_a_migration_that_was_interrupted_anywhere_can_be_run_again(url: str, revision: str) -> None:
    check_that_it_can_be_run_again(url, MIGRATIONS, revision)


def check_that_it_can_be_run_again(url: str, scripts: Path, revision: str) -> None:
    upgrade(url, before(revision) if revision in REVISIONS else REVISIONS[0])
    for changes in range(1, MANY_CHANGES):
        try:
            with interrupted(after=changes):
                upgrade(url, revision, scripts)
        except StoppedError:
            continue
        break
    else:
        pytest.fail(f"{revision} does not end")
    assert read(url, "SELECT indexrelid::regclass FROM pg_index WHERE NOT indisvalid") == []


def test_a_migration_that_can_not_be_run_again_is_noticed(url: str, tmp_path: Path) -> None:
    scripts = planted(
        tmp_path,
        body=in_a_transaction("ALTER TABLE items ADD COLUMN planted text")
        + "\n"
        + outside("CREATE INDEX CONCURRENTLY IF NOT EXISTS planted ON outbox (created_at)"),
    )

    with pytest.raises(ProgrammingError, match="already exists"):
        check_that_it_can_be_run_again(url, scripts, PLANTED)
