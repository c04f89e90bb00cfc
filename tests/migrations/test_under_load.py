"""Each migration runs on a million rows under load: nobody waits long for a lock, and old and new code run on."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from deploy.embedded import PostgreSQL
from domain.runtime.schema import SCHEMA_VERSION
from tests.migrations.databases import PLANTED, REVISIONS, connected, planted, read, upgrade
from tests.migrations.load import LOCK_MILLISECONDS, ThisRelease, loaded
from tests.migrations.release_0003 import REVISION, Release0003

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_200), pytest.mark.xdist_group("a_million_rows")]

ROWS = 1_000_000

#: The migrations after the release that runs beside them.
LATER = [revision for revision in reversed(REVISIONS) if revision > REVISION]

FILL = (
    # Without the checks of foreign keys, and with ids in order, it takes a third of the time.
    "SET session_replication_role = replica",
    """
    INSERT INTO items (sku, name, available_quantity, stock_quantity)
    SELECT 'SKU-' || n, 'Thing', 0, 1000000 FROM generate_series(1, 1000) AS n
    """,
    """
    INSERT INTO reservations (id, item_id, quantity, status, expires_at, guest_id, confirmed_at)
    SELECT uuidv7(), 1 + n % 1000, 1, CASE WHEN n % 10 = 0 THEN 'PENDING' ELSE 'CONFIRMED' END,
           now() + interval '1 day', 'guest-' || n % 5000, now()
    FROM generate_series(1, :rows) AS n
    """,
    """
    INSERT INTO reservation_history (reservation_id, to_status, changed_by)
    SELECT id, 'PENDING', 'api' FROM reservations
    """,
    """
    INSERT INTO outbox (event_id, destination, lane, aggregate_id, type, payload, processed_at, dead_at)
    SELECT uuidv7(), 'shop', n % 32, uuidv7(), 'booking.created', '{"booking_id": "b"}',
           CASE WHEN n % 100 > 1 THEN now() END, CASE WHEN n % 100 = 1 THEN now() END
    FROM generate_series(1, :rows) AS n
    """,
    """
    INSERT INTO idempotency_requests (client_id, operation, idempotency_key, payload_hash, answer)
    SELECT 'client', 'op', n::text, 'h', 'a' FROM generate_series(1, :rows) AS n
    """,
    "ANALYZE",
)


@pytest.fixture(scope="module")
def a_million(postgresql: PostgreSQL) -> Iterator[str]:
    """A database of the earlier release with a million rows of each kind."""
    url = postgresql.create("a_million")
    upgrade(url, REVISION)
    with connected(url) as connection:
        for statement in FILL:
            connection.execute(text(statement), {"rows": ROWS} if ":rows" in statement else {})
    yield url
    with connected(postgresql.url) as server:
        server.execute(text("DROP DATABASE a_million WITH (FORCE)"))


@pytest.fixture
def as_now(a_million: str) -> Iterator[str]:
    """The same database with the schema of this release. What a test adds to the schema stays, and harms nobody."""
    upgrade(a_million)
    yield a_million
    with connected(a_million) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :now"), {"now": SCHEMA_VERSION})


def earlier(url: str) -> Release0003:
    return Release0003(url, lock_milliseconds=LOCK_MILLISECONDS)


def test_the_earlier_release_runs_on_while_each_later_migration_runs(a_million: str) -> None:
    with loaded(earlier(a_million), earlier(a_million)) as load:
        for revision in LATER:
            upgrade(a_million, revision)
            load.wait_for_rounds()

    assert load.errors == []
    assert read(a_million, "SELECT version_num FROM alembic_version") == [(SCHEMA_VERSION,)]


def test_both_releases_run_side_by_side(as_now: str) -> None:
    with loaded(earlier(as_now), ThisRelease(as_now), ThisRelease(as_now)) as load:
        load.wait_for_rounds()

    assert load.errors == []


def test_a_migration_by_the_rules_makes_nobody_wait(as_now: str, tmp_path: Path) -> None:
    scripts = planted(tmp_path, body=BY_THE_RULES)

    with loaded(earlier(as_now), ThisRelease(as_now), ThisRelease(as_now)) as load:
        upgrade(as_now, scripts=scripts)

    assert load.errors == []
    assert read(as_now, "SELECT version_num FROM alembic_version") == [(PLANTED,)]


BY_THE_RULES = """
with op.get_context().autocommit_block():
    op.execute("CREATE INDEX CONCURRENTLY IF NOT EXISTS planted_outbox ON outbox (aggregate_id, created_at)")
    op.execute("CREATE INDEX CONCURRENTLY IF NOT EXISTS planted_reservations ON reservations (source, created_at)")
op.execute("ALTER TABLE reservations ADD COLUMN planted int NOT NULL DEFAULT 7")
op.execute("ALTER TABLE reservations ADD CONSTRAINT planted CHECK (quantity < 1000000) NOT VALID")
with op.get_context().autocommit_block():
    op.execute("ALTER TABLE reservations VALIDATE CONSTRAINT planted")
"""


@pytest.mark.parametrize("table", ["reservations", "outbox", "items", "outbox_lanes"])
def test_a_migration_that_keeps_its_lock_is_noticed(as_now: str, tmp_path: Path, table: str) -> None:
    scripts = planted(tmp_path, body=KEEPS_ITS_LOCK.format(table=table, seconds=2 * LOCK_MILLISECONDS / 1_000))

    with loaded(earlier(as_now), ThisRelease(as_now)) as load:
        upgrade(as_now, scripts=scripts)

    assert "lock timeout" in str(load.errors[0])


KEEPS_ITS_LOCK = """
op.execute("ALTER TABLE {table} ADD COLUMN planted_badly text")
op.execute("SELECT pg_sleep({seconds})")
"""


def test_a_migration_that_takes_a_column_away_is_noticed(as_now: str, tmp_path: Path) -> None:
    scripts = planted(tmp_path, body='op.execute("ALTER TABLE outbox_lanes RENAME COLUMN low_watermark TO planted")')

    with loaded(earlier(as_now), ThisRelease(as_now)) as load:
        upgrade(as_now, scripts=scripts)

    with connected(as_now) as connection:
        connection.execute(text("ALTER TABLE outbox_lanes RENAME COLUMN planted TO low_watermark"))
    assert "low_watermark" in str(load.errors[0])
