"""The cells of the fault matrix: every fault at every checkpoint of the delivery to every destination.

`bin/test faults` runs all of them. `bin/test` runs a fifth of the pairs of a checkpoint and a fault, each with one
destination, which is another one from pair to pair. `HOLDFAST_FAULTS_SEED=n` chooses the fifth, of the pairs and of the
mutants, by n modulo 5, and shifts the destinations by n divided by 5: 25 seeds run every cell.
"""

import os
from collections.abc import Sequence
from typing import NamedTuple

import pytest

from tests.faults.brokers import QUEUE, STREAM
from tests.faults.checkpoints import CHECKPOINTS, prune, replay_some
from tests.faults.fault_injections import FAULTS
from tests.proofs.checker import CONFIRMATION, SINKS

PARTS = 5

SEED = int(os.environ.get("HOLDFAST_FAULTS_SEED", "0"))

DESTINATIONS = (*SINKS, STREAM, QUEUE, CONFIRMATION)


class Cell(NamedTuple):
    """A fault that hits at a checkpoint, while rows go to a destination."""

    checkpoint: str
    fault: str
    destination: str


def cells() -> Sequence[Cell]:
    """Return every cell."""
    return [Cell(*pair, destination) for pair in pairs() for destination in destinations_of(pair[0])]


def pairs() -> Sequence[tuple[str, str]]:
    """Return the names of checkpoint and fault of each pair, in an order in which neighbours share neither.

    The numbers of checkpoints and of faults have no common divisor, so going round both at once meets every pair.
    """
    checkpoints, faults = list(CHECKPOINTS), list(FAULTS)
    numbers = range(len(checkpoints) * len(faults))
    return [(checkpoints[number % len(checkpoints)], faults[number % len(faults)]) for number in numbers]


def destinations_of(checkpoint: str) -> Sequence[str]:
    """Return the destinations that a checkpoint may meet. Pruning calls none, and a step is not replayed."""
    if CHECKPOINTS[checkpoint].work is prune:
        return DESTINATIONS[:1]
    return [name for name in DESTINATIONS if name != CONFIRMATION or CHECKPOINTS[checkpoint].work is not replay_some]


def part(seed: int) -> Sequence[Cell]:
    """Return a fifth of the pairs, each with one destination. It has every checkpoint, fault and destination."""
    every = list(enumerate(pairs()))
    number, shift = seed % PARTS, seed // PARTS
    chosen = every[len(every) * number // PARTS : len(every) * (number + 1) // PARTS]
    return [Cell(*pair, _nth(destinations_of(pair[0]), place + shift)) for place, pair in chosen]


def _nth(names: Sequence[str], number: int) -> str:
    return names[number % len(names)]


def marked() -> list[object]:
    """Return all cells as parameters of a test, marked by when they run."""
    chosen = part(SEED)
    # The chosen cells run in one process, and share its environment.
    now = [pytest.mark.slow, pytest.mark.xdist_group("faults")]
    return [
        pytest.param(*cell, id="-".join(cell), marks=now if cell in chosen else pytest.mark.faults) for cell in cells()
    ]
