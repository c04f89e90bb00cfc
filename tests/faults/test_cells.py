"""The parts of the fault matrix: none is too small to show something, and together they leave no cell out."""

from itertools import product

import pytest

from tests.faults.cells import DESTINATIONS, PARTS, cells, pairs, part
from tests.faults.checkpoints import CHECKPOINTS
from tests.faults.fault_injections import FAULTS


def test_there_is_a_cell_for_every_fault_at_every_checkpoint() -> None:
    assert sorted(pairs()) == sorted(product(CHECKPOINTS, FAULTS))


@pytest.mark.parametrize("checkpoint", ["before-claim-commits", "after-claim", "in-mid-delivery", "in-mid-settle"])
def test_every_fault_meets_every_destination(checkpoint: str) -> None:
    met = {(cell.fault, cell.destination) for cell in cells() if cell.checkpoint == checkpoint}

    assert met == set(product(FAULTS, DESTINATIONS))


def test_the_parts_have_every_pair_once() -> None:
    assert sorted(cell[:2] for seed in range(PARTS) for cell in part(seed)) == sorted(pairs())


def test_seeds_enough_run_every_cell() -> None:
    seeds = range(PARTS * len(DESTINATIONS))

    assert {cell for seed in seeds for cell in part(seed)} == set(cells())


@pytest.mark.parametrize("seed", range(PARTS))
def test_a_part_has_every_checkpoint_every_fault_and_every_destination(seed: int) -> None:
    chosen = part(seed)

    assert {cell.checkpoint for cell in chosen} == CHECKPOINTS.keys()
    assert {cell.fault for cell in chosen} == FAULTS.keys()
    assert {cell.destination for cell in chosen} == set(DESTINATIONS)
