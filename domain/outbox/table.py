"""The tables of the outbox: rows, lanes, destinations, and what operators did."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ColumnElement,
    DateTime,
    Identity,
    Index,
    Integer,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    and_,
    func,
    or_,
    select,
    text,
    tuple_,
    union_all,
)
from sqlalchemy.dialects.postgresql import JSONB

from domain.runtime.database import metadata

#: How many slices a destination's aggregates are cut into: as many workers can drain one
#: destination at once. It is part of every stored row, so changing it needs a migration.
LANES = 32

outbox = Table(
    "outbox",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("event_id", Uuid, nullable=False),
    Column("destination", String(64), nullable=False),
    Column("lane", SmallInteger, nullable=False),
    Column("aggregate_id", Uuid, nullable=False),
    Column("type", String(50), nullable=False),
    Column("payload", JSONB, nullable=False),
    Column("headers", JSONB, nullable=False, server_default=text("'{}'")),
    Column("attempts", SmallInteger, nullable=False, server_default="0"),
    Column("available_at", DateTime(timezone=True)),
    Column("unreachable_at", DateTime(timezone=True)),
    Column("last_error", Text),
    Column("processed_at", DateTime(timezone=True)),
    Column("dead_at", DateTime(timezone=True)),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("replayed_at", DateTime(timezone=True)),
    Column("discarded_at", DateTime(timezone=True)),
    UniqueConstraint("event_id", "destination"),
    CheckConstraint(f"lane >= 0 AND lane < {LANES}", name="lane_in_range"),
    CheckConstraint("processed_at IS NULL OR dead_at IS NULL", name="delivered_or_dead"),
    CheckConstraint("discarded_at IS NULL OR dead_at IS NOT NULL", name="discarded_is_dead"),
    # Each settled row leaves a dead entry in the index of ready rows. By default, ten million rows
    # would collect two million of these before a vacuum, and each claim would walk over them.
    postgresql_with={"autovacuum_vacuum_scale_factor": 0.01, "autovacuum_vacuum_threshold": 10_000},
)

#: A time that has come, whatever steps the clock of PostgreSQL makes: for rows that are due at once.
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)

pending = and_(outbox.c.processed_at.is_(None), outbox.c.dead_at.is_(None))
ready = and_(pending, outbox.c.available_at.is_(None))
waiting = and_(pending, outbox.c.available_at.is_not(None))
ended = or_(outbox.c.processed_at.is_not(None), outbox.c.dead_at.is_not(None))

# Rows that wait for their retry are in no index that ready rows are read from, so that
# a hundred thousand waiting rows cost the ready ones nothing.
BY_DESTINATION = (outbox.c.destination, outbox.c.id)
BY_LANE = (outbox.c.destination, outbox.c.lane, outbox.c.id)
BY_AGGREGATE = (outbox.c.destination, outbox.c.aggregate_id, outbox.c.id)
BY_DUE_TIME = (outbox.c.destination, outbox.c.lane, outbox.c.available_at)
Index("ix_outbox_ready", *BY_LANE, postgresql_where=ready)
Index("ix_outbox_waiting_aggregate", *BY_AGGREGATE, postgresql_where=waiting)
Index("ix_outbox_waiting_due", *BY_DUE_TIME, postgresql_where=waiting)
Index("ix_outbox_dead", *BY_DESTINATION, postgresql_where=outbox.c.dead_at.is_not(None))

# Rows that may be pruned, the oldest first: pruning never walks over young rows or dead letters.
Index("ix_outbox_processed_at", outbox.c.processed_at, postgresql_where=outbox.c.processed_at.is_not(None))
Index("ix_outbox_discarded_at", outbox.c.discarded_at, postgresql_where=outbox.c.discarded_at.is_not(None))

# Rows of one reservation, for operators. Whoever records a row does not write to this index (decision 0162).
Index("ix_outbox_ended_aggregate", outbox.c.aggregate_id, postgresql_where=ended)


def of_aggregate(aggregate_id: UUID) -> ColumnElement[bool]:
    """Return that a row is one of an aggregate. Rows in each state are found by an index of that state."""
    states = ended, and_(ready, outbox.c.lane == lane_of(aggregate_id)), waiting
    rows = (select(outbox.c.id).where(state, outbox.c.aggregate_id == aggregate_id).correlate(None) for state in states)
    return outbox.c.id.in_(union_all(*rows))


def within(
    index: Sequence[ColumnElement[Any]], first: Sequence[Any], *, above: Any = None, to: Any = None
) -> ColumnElement[bool]:
    """Return that the first columns of an index have these values, and its last one is above a value, or up to another.

    The last column is compared in a row with the others, which the key of the table does not fit. Order by all of these
    columns. Otherwise PostgreSQL may take any index that has one of them while its statistics are old, and walk over a
    whole backlog.
    """
    row, prefix = tuple_(*index), index[: len(first)]
    conditions = []
    if to is not None:
        conditions.append(row <= tuple_(*first, to))
    if above is None:
        conditions.extend(column == value for column, value in zip(prefix, first, strict=True))
    else:
        # With `=`, PostgreSQL would begin where the first columns have these values, and walk from there to `above`.
        conditions.append(row > tuple_(*first, above))
        if to is None:
            conditions.append(tuple_(*prefix) <= tuple_(*first))
    return and_(*conditions)


lanes = Table(
    "outbox_lanes",
    metadata,
    Column("destination", String(64), primary_key=True),
    Column("lane", SmallInteger, primary_key=True, autoincrement=False),
    Column("epoch", BigInteger, nullable=False, server_default="0"),
    Column("holder", String(64)),
    Column("leased_until", DateTime(timezone=True)),
    # None of its rows up to this id is ready; see `delivery.low_watermark`.
    Column("low_watermark", BigInteger, nullable=False, server_default="0"),
    # The advisory lock of the process that leased it; see `delivery.liveness`.
    Column("liveness_key", Integer),
    # A lane is rewritten at each claim; with room on its page that touches no index.
    postgresql_with={"fillfactor": 50},
)

# Calls in flight that have outlasted their batch, by the id of the row: their lanes are not kept for them. The key is
# the advisory lock of the process that makes the call, as in `lanes`, or null.
calls = Table(
    "outbox_calls",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("liveness_key", Integer),
)

destinations = Table(
    "outbox_destinations",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("paused", Boolean, nullable=False, server_default=text("false")),
    Column("open_until", DateTime(timezone=True)),
    Column("opened_at", DateTime(timezone=True)),
    Column("failures", Integer, nullable=False, server_default="0"),
    Column("recovered_at", DateTime(timezone=True)),
    Column("reason", Text),
    postgresql_with={"fillfactor": 50},
)


#: The routes in force: which events each destination gets, whoever records them. There is one row at the most.
routes_in_force = Table(
    "outbox_routes",
    metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False, server_default="1"),
    Column("destinations", JSONB, nullable=False),
    Column("changed_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    CheckConstraint("id = 1", name="only_one"),
)


class Row(NamedTuple):
    """One event on its way to one destination, as fetched. `payload` and `headers` are JSON text.

    `fetched_at` is the database's time. Deliveries are stamped with it, as a consumer may refuse a delivery that a
    worker with a wrong clock has stamped.
    """

    id: int
    event_id: UUID
    aggregate_id: UUID
    type: str
    payload: str
    headers: str
    attempts: int
    created_at: datetime
    unreachable_at: datetime | None
    waits_until: datetime | None
    fetched_at: datetime

    @property
    def is_replayed(self) -> bool:
        """Whether the row is sent again after it was delivered or dead: the header `replayed` says since when."""
        # Parsing the headers would cost more than everything else that is done to a row. The colon makes this
        # match a name only: values may be chosen by a client.
        return '"replayed":' in self.headers


def lane_of(aggregate_id: UUID) -> int:
    """Return the lane of an aggregate, which is always the same. The low bits of a UUID are random."""
    return aggregate_id.int % LANES
