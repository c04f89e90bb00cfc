"""Which lanes are leased, for operators: those that no worker may claim now."""

from sqlalchemy import and_

from domain.outbox.delivery.lanes import LEASE
from domain.outbox.table import lanes
from domain.runtime.database import CLOCK

#: Whether a lane is leased. A lease that ends later than any lease can was written before PostgreSQL's clock stepped
#: back: such a lane is free to be claimed.
IS_LEASED = and_(lanes.c.holder.is_not(None), lanes.c.leased_until > CLOCK, lanes.c.leased_until <= CLOCK + LEASE)
