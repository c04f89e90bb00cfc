"""What tests of the invariants begin with."""

import pytest

from tests.support.builders import Db
from tests.support.invariants import a_used_database


@pytest.fixture
def used(db: Db) -> Db:
    return a_used_database(db)
