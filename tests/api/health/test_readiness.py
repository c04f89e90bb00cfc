"""Readiness: the API serves while the schema serves its release, and says otherwise what to do."""

from collections.abc import Iterator

import httpx
import pytest
from sqlalchemy import text

from domain.runtime.schema import SCHEMA_VERSION, read_schema
from tests.support.broken_tables import missing
from tests.support.builders import Db

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def schema_is_restored(db: Db) -> Iterator[None]:
    with db.begin() as session:
        schema = read_schema(session)
    assert schema is not None
    yield
    stored_as(db, *schema)


def stored_as(db: Db, version: str, serves_from: str) -> None:
    """Let the schema be at a version, and serve the code since another one."""
    change = text("UPDATE alembic_version SET version_num = :version, serves_from = :serves_from")
    with db.begin() as session:
        session.execute(change, {"version": version, "serves_from": serves_from})


def readiness(api: httpx.Client) -> tuple[int, str]:
    response = api.get("/health/ready")
    return response.status_code, response.json()["database"].partition(":")[0]


def test_the_api_is_ready_while_the_schema_serves_it(api: httpx.Client, db: Db) -> None:
    assert readiness(api) == (200, "ok")

    stored_as(db, "9999", SCHEMA_VERSION)

    assert readiness(api) == (200, "ok")


def test_the_api_is_not_ready_on_an_older_schema(api: httpx.Client, db: Db) -> None:
    stored_as(db, "0001", "0001")

    assert readiness(api) == (503, "not migrated")


def test_the_api_is_not_ready_on_a_schema_that_serves_newer_releases_only(api: httpx.Client, db: Db) -> None:
    stored_as(db, "9999", "9999")

    assert readiness(api) == (503, "migrated for a newer release, which this one can't run beside")


def test_the_api_is_not_ready_while_a_table_or_a_column_is_missing_whatever_the_version_says(
    api: httpx.Client, db: Db
) -> None:
    with missing(db, "feed_events"), missing(db, "items", "venue"):
        response = api.get("/health/ready")

    assert response.status_code == 503
    assert response.json()["database"].startswith("incomplete: the schema lacks feed_events, items.venue, ")
    assert readiness(api) == (200, "ok")
