"""A database whose events all go to one destination, the shop, and how its lanes and its clock are read."""

from datetime import datetime

import pytest
from sqlalchemy import Row, select, update

from domain.outbox import LeasedLane
from domain.outbox.table import destinations, lanes
from domain.runtime.database import now
from tests.support.builders import Db
from tests.support.outbox import SHOP, with_shop


@pytest.fixture
def shop(db: Db) -> Db:
    """Sessions that record every event for the shop, and for no other destination."""
    return with_shop(db)


def stored_lane(db: Db, lane: LeasedLane) -> Row[int, str | None, datetime | None]:
    """Return the epoch, the holder and the end of the lease of a lane, as the database has them."""
    columns = lanes.c.epoch, lanes.c.holder, lanes.c.leased_until
    stored = select(*columns).where(lanes.c.destination == lane.destination, lanes.c.lane == lane.number)
    with db.begin() as session:
        return session.execute(stored).one()


def set_shop(db: Db, **values: object) -> None:
    """Change the row of the shop in the table of destinations."""
    with db.begin() as session:
        session.execute(update(destinations).where(destinations.c.name == SHOP).values(values))


def clock(db: Db) -> datetime:
    """Return the time of the database."""
    with db.begin() as session:
        return now(session)
