"""The parts of the fault matrix: none is too small to show something, and together they leave no cell out."""

from itertools import product

import pytest

from tests.faults.cells import PARTS, cells, part
from tests.faults.checkpoints import CHECKPOINTS
from tests.faults.fault_injections import FAULTS


def test_there_is_a_cell_for_every_fault_at_every_checkpoint() -> None:
    assert sorted(cells()) == sorted(product(CHECKPOINTS, FAULTS))


def test_the_parts_have_every_cell_once() -> None:
    assert sorted(cell for number in range(PARTS) for cell in part(number)) == sorted(cells())


@pytest.mark.parametrize("number", range(PARTS))
def test_a_part_has_every_checkpoint_and_every_fault(number: int) -> None:
    chosen = part(number)

    assert {checkpoint for checkpoint, _ in chosen} == CHECKPOINTS.keys()
    assert {fault for _, fault in chosen} == FAULTS.keys()
