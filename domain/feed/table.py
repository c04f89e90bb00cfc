"""The table of the feed."""

from sqlalchemy import BigInteger, Column, DateTime, Index, String, Table, UniqueConstraint, Uuid, func
from sqlalchemy.dialects.postgresql import JSONB

from domain.runtime.database import metadata

feed_events = Table(
    "feed_events",
    metadata,
    # Positions have no gaps, and their order is the order of the commits; see `append`.
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("event_id", Uuid, nullable=False),
    Column("type", String(50), nullable=False),
    Column("aggregate_id", Uuid, nullable=False),
    Column("payload", JSONB, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    # It never goes back from one position to the next, so what is pruned by it is a first part of the feed.
    Column("appended_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    UniqueConstraint("event_id"),
    # Whoever reads from the beginning walks over the entries of pruned rows until a vacuum has removed them.
    postgresql_with={"autovacuum_vacuum_scale_factor": 0.01, "autovacuum_vacuum_threshold": 10_000},
)

BY_AGGREGATE = (feed_events.c.aggregate_id, feed_events.c.position)
BY_TYPE = (feed_events.c.type, feed_events.c.position)
Index("ix_feed_events_aggregate_id_position", *BY_AGGREGATE)
Index("ix_feed_events_type_position", *BY_TYPE)
Index("ix_feed_events_appended_at", feed_events.c.appended_at)
