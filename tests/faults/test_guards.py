"""Every mutant still finds the guard that it takes away. The mutants themselves run in `test_mutants`."""

import pytest

from domain.runtime.settings import ROOT
from tests.faults.guards import MUTANTS, SUITES
from tests.faults.mutant import Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.title)
def test_a_guard_is_where_its_mutant_looks_for_it(mutant: Mutant) -> None:
    source = (ROOT / mutant.path).read_text()

    assert mutant.mutate(source) != source


def test_every_suite_exists() -> None:
    assert [path for suite in SUITES.values() for path in suite if not (ROOT / path).exists()] == []
