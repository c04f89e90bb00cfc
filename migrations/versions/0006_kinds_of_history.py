"""An entry of the history has a kind and details, because not every change is one of the status."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        ALTER TABLE reservation_history
            ADD COLUMN kind VARCHAR(20) DEFAULT 'status' NOT NULL,
            ADD COLUMN details JSONB
    """)


def downgrade() -> None:
    op.execute("ALTER TABLE reservation_history DROP COLUMN details, DROP COLUMN kind")
