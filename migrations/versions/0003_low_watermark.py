"""The column of a lane's low watermark gets its name."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE outbox_lanes RENAME COLUMN settled_to TO low_watermark")


def downgrade() -> None:
    op.execute("ALTER TABLE outbox_lanes RENAME COLUMN low_watermark TO settled_to")
