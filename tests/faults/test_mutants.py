"""A check that can't fail is worth nothing: each guard of the outbox is taken away, and a test notices."""

import os

import pytest

from deploy.embedded import PostgreSQL
from tests.faults.guards import MUTANTS
from tests.faults.mutant import Mutant
from tests.faults.mutation import FAILED, verdict_on

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def database_url(postgresql: PostgreSQL) -> str:
    """A database of its own for the tests that run without a guard."""
    return postgresql.create(f"mutants_{os.getpid()}")


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.title)
def test_a_guard_that_is_missing_is_noticed(database_url: str, mutant: Mutant) -> None:
    verdict = verdict_on([mutant.noticed_by], mutant, database_url=database_url)

    assert (verdict.status, verdict.noticed_by) == (FAILED, mutant.noticed_by), verdict.output
