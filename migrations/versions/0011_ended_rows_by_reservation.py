"""Delivered and dead rows of the outbox are found by their reservation."""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("""
            CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_outbox_ended_aggregate ON outbox (aggregate_id)
            WHERE processed_at IS NOT NULL OR dead_at IS NOT NULL
        """)


def downgrade() -> None:
    op.execute("DROP INDEX IF EXISTS ix_outbox_ended_aggregate")
