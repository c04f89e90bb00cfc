"""What operators need: replays, discarded dead letters, since when a breaker is open, who did what; quick pruning."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        ALTER TABLE outbox
            ADD COLUMN replayed_at timestamptz,
            ADD COLUMN discarded_at timestamptz,
            ADD CONSTRAINT ck_outbox_discarded_is_dead CHECK (discarded_at IS NULL OR dead_at IS NOT NULL);

        CREATE INDEX ix_outbox_processed_at ON outbox (processed_at) WHERE processed_at IS NOT NULL;

        CREATE INDEX ix_outbox_discarded_at ON outbox (discarded_at) WHERE discarded_at IS NOT NULL;

        ALTER TABLE outbox SET (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 10000);

        ALTER TABLE outbox_destinations ADD COLUMN opened_at timestamptz;

        ALTER TABLE outbox_lanes ADD COLUMN settled_to BIGINT DEFAULT 0 NOT NULL;

        CREATE TABLE outbox_operations (
            id BIGINT GENERATED ALWAYS AS IDENTITY,
            action VARCHAR(20) NOT NULL,
            who VARCHAR(255) NOT NULL,
            why TEXT NOT NULL,
            selection JSONB NOT NULL,
            rows BIGINT DEFAULT 0 NOT NULL,
            happened_at timestamptz DEFAULT clock_timestamp() NOT NULL,
            CONSTRAINT pk_outbox_operations PRIMARY KEY (id)
        );
    """)


def downgrade() -> None:
    op.execute("""
        DROP TABLE outbox_operations;
        ALTER TABLE outbox_lanes DROP COLUMN settled_to;
        ALTER TABLE outbox_destinations DROP COLUMN opened_at;
        ALTER TABLE outbox RESET (autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold);
        DROP INDEX ix_outbox_processed_at;
        ALTER TABLE outbox
            DROP CONSTRAINT ck_outbox_discarded_is_dead,
            DROP COLUMN replayed_at,
            DROP COLUMN discarded_at;
    """)
