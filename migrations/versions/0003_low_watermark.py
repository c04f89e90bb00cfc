"""The column of a lane's low watermark gets its name."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

#: Older code has the column under its old name.
serves_from = "0003"


def upgrade() -> None:
    _rename("settled_to", "low_watermark")


def downgrade() -> None:
    _rename("low_watermark", "settled_to")


def _rename(old: str, new: str) -> None:
    op.execute(f"ALTER TABLE outbox_lanes RENAME COLUMN {old} TO {new}")
    # From PostgreSQL 18 on NOT NULL is a named constraint, which does not follow the column's name.
    op.execute(f"""
        DO $$ BEGIN
            IF EXISTS (SELECT FROM pg_constraint WHERE conname = 'outbox_lanes_{old}_not_null') THEN
                ALTER TABLE outbox_lanes
                    RENAME CONSTRAINT outbox_lanes_{old}_not_null TO outbox_lanes_{new}_not_null;
            END IF;
        END $$
    """)
