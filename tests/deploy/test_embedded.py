"""The servers that bin/up starts: one that has stopped by itself needs no stopping."""

import subprocess
from collections.abc import Iterator

import pytest

from deploy.embedded import PostgreSQL
from tests.proofs.conftest import a_postgresql

pytestmark = pytest.mark.slow


@pytest.fixture
def own_postgresql() -> Iterator[PostgreSQL]:
    with a_postgresql() as server:
        yield server


def test_a_postgresql_that_has_stopped_already_can_be_stopped(own_postgresql: PostgreSQL) -> None:
    own_postgresql.stop("immediate")

    own_postgresql.stop()

    own_postgresql.start()
    own_postgresql.create("again")


def test_a_postgresql_that_does_not_stop_is_reported(own_postgresql: PostgreSQL) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        own_postgresql.stop("nonsense")
