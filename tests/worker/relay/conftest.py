"""What tests of the relay share."""

import pytest

from tests.support.builders import Db
from tests.support.outbox import an_aggregate, recorded_for, with_shop


@pytest.fixture
def shop(db: Db) -> Db:
    """A database whose events all go to the shop. It has one in each of two lanes."""
    sessions = with_shop(db)
    recorded_for(sessions, an_aggregate(1), an_aggregate(2))
    return sessions
