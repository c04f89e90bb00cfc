"""Databases of their own, since a test of a migration changes the schema."""

from collections.abc import Iterator
from uuid import uuid4

import pytest
from sqlalchemy import Engine, event, text

from deploy.embedded import PostgreSQL
from tests.conftest import allow_open_transactions
from tests.migrations.databases import connected, upgrade


@pytest.fixture(autouse=True)
def open_transactions() -> Iterator[None]:
    """Let a busy machine take longer between two statements of a migration than production may."""
    event.listen(Engine, "connect", allow_open_transactions)
    yield
    event.remove(Engine, "connect", allow_open_transactions)


@pytest.fixture
def url(postgresql: PostgreSQL) -> Iterator[str]:
    """An empty database of its own."""
    name = f"migrations_{uuid4().hex[:8]}"
    yield postgresql.create(name)
    with connected(postgresql.url) as server:
        server.execute(text(f'DROP DATABASE "{name}" WITH (FORCE)'))


@pytest.fixture
def migrated(url: str) -> str:
    """A migrated database of its own."""
    upgrade(url)
    return url
