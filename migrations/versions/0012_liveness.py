"""A leased lane names the advisory lock of the process that leased it."""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Null says that only the lease ends the claim, which is so for the claims of earlier code.
    op.execute("ALTER TABLE outbox_lanes ADD COLUMN liveness_key INTEGER")


def downgrade() -> None:
    op.execute("ALTER TABLE outbox_lanes DROP COLUMN liveness_key")
