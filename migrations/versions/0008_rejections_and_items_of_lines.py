"""A rejection has its time, and each line of a reservation has an item that exists."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

#: Earlier code writes lines for items that it has locked, so the foreign key restricts nothing that it does.
serves_from = "0003"

#: A foreign key locks two tables, which requests lock in either order. A statement that gives up before PostgreSQL
#: looks for deadlocks, 1 s after a wait began, ends no request. It is tried again.
BRIEF = "SET LOCAL lock_timeout = '500ms';"

#: But an autovacuum ends itself only after that second. No request waits for this lock, and no autovacuum begins then.
WITHOUT_AUTOVACUUM = "LOCK TABLE items, reservation_lines IN SHARE UPDATE EXCLUSIVE MODE"


def upgrade() -> None:
    op.execute(WITHOUT_AUTOVACUUM)
    # IF NOT EXISTS, because a migration that is interrupted after this is run again from its beginning.
    op.execute(f"""
        {BRIEF}
        DO $$ BEGIN
            IF NOT EXISTS (SELECT FROM pg_constraint WHERE conname = 'fk_reservation_lines_item_id') THEN
                ALTER TABLE reservation_lines ADD CONSTRAINT fk_reservation_lines_item_id
                    FOREIGN KEY(item_id) REFERENCES items (id) NOT VALID;
            END IF;
        END $$
    """)
    with op.get_context().autocommit_block():
        op.execute("ALTER TABLE reservation_lines VALIDATE CONSTRAINT fk_reservation_lines_item_id")
    op.execute("ALTER TABLE reservations ADD COLUMN rejected_at timestamptz")


def downgrade() -> None:
    op.execute(WITHOUT_AUTOVACUUM)
    op.execute(f"{BRIEF} ALTER TABLE reservation_lines DROP CONSTRAINT IF EXISTS fk_reservation_lines_item_id")
    with op.get_context().autocommit_block():
        pass  # which commits: the other table is changed in a transaction of its own
    op.execute("ALTER TABLE reservations DROP COLUMN rejected_at")
