"""The mutants are run by hand; that each still finds its guard is seen here."""

import pytest

from domain.runtime.settings import ROOT
from tests.faults.guards import MUTANTS, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.says)
def test_a_guard_is_where_its_mutant_looks_for_it(mutant: Mutant) -> None:
    assert (ROOT / mutant.path).read_text().count(mutant.text) == 1
