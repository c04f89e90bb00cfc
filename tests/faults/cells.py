"""The cells of the fault matrix: every fault at every checkpoint. A fifth of them run each time, the others on demand.

`HOLDFAST_FAULTS_SEED=n` chooses the fifth, of the cells and of the mutants, from 0 to 4 and around again.
"""

import os
from collections.abc import Sequence

import pytest

from tests.faults.checkpoints import CHECKPOINTS
from tests.faults.fault_injections import FAULTS

PARTS = 5

SEED = int(os.environ.get("HOLDFAST_FAULTS_SEED", "0"))


def cells() -> Sequence[tuple[str, str]]:
    """Return the names of checkpoint and fault of each cell, in an order in which neighbours share neither.

    The numbers of checkpoints and of faults have no common divisor, so going round both at once meets every cell.
    """
    checkpoints, faults = list(CHECKPOINTS), list(FAULTS)
    numbers = range(len(checkpoints) * len(faults))
    return [(checkpoints[number % len(checkpoints)], faults[number % len(faults)]) for number in numbers]


def part(number: int) -> Sequence[tuple[str, str]]:
    """Return a fifth of the cells. It has every checkpoint and every fault at least once."""
    every = cells()
    number %= PARTS
    return every[len(every) * number // PARTS : len(every) * (number + 1) // PARTS]


def marked() -> list[object]:
    """Return all cells as parameters of a test, marked by when they run."""
    chosen = part(SEED)
    # The chosen cells run in one process, and share its environment.
    now = [pytest.mark.slow, pytest.mark.xdist_group("faults")]
    return [
        pytest.param(*cell, id="-".join(cell), marks=now if cell in chosen else pytest.mark.faults) for cell in cells()
    ]
