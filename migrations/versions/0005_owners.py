"""A reservation has an owner, may have an outside reference, and counts its lines."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # A constant default rewrites no table.
    op.execute("""
        ALTER TABLE reservations
            ADD COLUMN client_id VARCHAR(255) DEFAULT 'anonymous' NOT NULL,
            ADD COLUMN external_reference VARCHAR(255),
            ADD COLUMN line_count SMALLINT DEFAULT 1 NOT NULL
    """)


def downgrade() -> None:
    op.execute("""
        ALTER TABLE reservations
            DROP COLUMN line_count,
            DROP COLUMN external_reference,
            DROP COLUMN client_id
    """)
