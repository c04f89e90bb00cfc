"""What the cells of the matrix share."""

from collections.abc import Iterator

import pytest

from tests.faults.environment import Environments
from tests.proofs.conftest import a_postgresql, open_cluster, seed

__all__ = ["open_cluster", "seed"]


@pytest.fixture(scope="module")
def environments() -> Iterator[Environments]:
    with a_postgresql() as postgresql:
        environments = Environments(postgresql)
        yield environments
        environments.close()
