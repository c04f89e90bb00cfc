"""The feed of events."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE feed_events (
            position BIGINT NOT NULL,
            event_id UUID NOT NULL,
            type VARCHAR(50) NOT NULL,
            aggregate_id UUID NOT NULL,
            payload JSONB NOT NULL,
            created_at timestamptz NOT NULL,
            appended_at timestamptz DEFAULT clock_timestamp() NOT NULL,
            CONSTRAINT pk_feed_events PRIMARY KEY (position),
            CONSTRAINT uq_feed_events_event_id UNIQUE (event_id)
        ) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 10000);

        CREATE INDEX ix_feed_events_aggregate_id_position ON feed_events (aggregate_id, position);

        CREATE INDEX ix_feed_events_type_position ON feed_events (type, position);

        CREATE INDEX ix_feed_events_appended_at ON feed_events (appended_at);
    """)


def downgrade() -> None:
    op.execute("DROP TABLE IF EXISTS feed_events")
