"""Slots: stock of one unit that a provider offers for a period."""

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

#: Earlier code neither reads nor writes what is new.
serves_from = "0003"

SLOT_IS_COMPLETE = "ck_items_slot_complete"
SLOTS_OF_PROVIDER = "ix_items_provider_slot"


def upgrade() -> None:
    for column in ("slot_starts_at", "slot_ends_at"):
        op.execute(f"ALTER TABLE items ADD COLUMN IF NOT EXISTS {column} timestamptz")
    op.execute(f"""
        ALTER TABLE items DROP CONSTRAINT IF EXISTS {SLOT_IS_COMPLETE},
            ADD CONSTRAINT {SLOT_IS_COMPLETE} CHECK (
                (slot_starts_at IS NULL) = (slot_ends_at IS NULL) AND (slot_starts_at IS NULL OR (
                    slot_starts_at < slot_ends_at AND kind = 'stock' AND stock_quantity <= 1 AND provider IS NOT NULL
                ))
            ) NOT VALID
    """)
    with op.get_context().autocommit_block():
        op.execute(f"ALTER TABLE items VALIDATE CONSTRAINT {SLOT_IS_COMPLETE}")
        op.execute(f"""
            CREATE INDEX CONCURRENTLY IF NOT EXISTS {SLOTS_OF_PROVIDER}
            ON items (provider, slot_starts_at, id) WHERE slot_starts_at IS NOT NULL
        """)


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {SLOTS_OF_PROVIDER}")
    op.execute(f"ALTER TABLE items DROP CONSTRAINT IF EXISTS {SLOT_IS_COMPLETE}")
    for column in ("slot_starts_at", "slot_ends_at"):
        op.execute(f"ALTER TABLE items DROP COLUMN IF EXISTS {column}")
