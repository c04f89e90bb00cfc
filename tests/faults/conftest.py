"""What the cells of the matrix share."""

from collections.abc import Iterator

import pytest

from tests.faults.environment import Stages
from tests.proofs.conftest import a_postgresql, open_house, seed

__all__ = ["open_house", "seed"]


@pytest.fixture(scope="module")
def stages() -> Iterator[Stages]:
    with a_postgresql() as postgresql:
        stages = Stages(postgresql)
        yield stages
        stages.close()
