"""A check that can't fail is worth nothing: each guard is taken away, and a test notices.

As of the fault matrix, a fifth of the mutants run each time, the others by `bin/test faults`.
"""

import os

import pytest

from deploy.embedded import PostgreSQL
from tests.faults.cells import PARTS, SEED
from tests.faults.guards import MUTANTS
from tests.faults.mutant import Mutant
from tests.faults.mutation import FAILED, verdict_on

#: All mutants as parameters of a test, marked by when they run.
MARKED = [
    pytest.param(mutant, id=mutant.title, marks=pytest.mark.faults if (number - SEED) % PARTS else pytest.mark.slow)
    for number, mutant in enumerate(MUTANTS)
]


@pytest.fixture(scope="module")
def database_url(postgresql: PostgreSQL) -> str:
    """A database of its own for the tests that run without a guard."""
    return postgresql.create(f"mutants_{os.getpid()}")


@pytest.mark.parametrize("mutant", MARKED)
def test_a_guard_that_is_missing_is_noticed(database_url: str, mutant: Mutant) -> None:
    verdict = verdict_on([mutant.noticed_by], mutant, database_url=database_url)

    assert (verdict.status, verdict.noticed_by) == (FAILED, mutant.noticed_by), verdict.output
