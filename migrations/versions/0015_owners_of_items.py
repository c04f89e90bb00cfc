"""Items, and the reservations of them, belong to venues and providers, and are listed by these."""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

#: Earlier code neither reads nor writes the new columns.
serves_from = "0003"

OWNERS = ("venue", "provider")

#: The reservations that get their venue at a time. Each batch locks its rows for less than a second.
BATCH = 10_000

#: The class of a reservation's duration, as earlier indexes have it.
CLASS = (
    "width_bucket(EXTRACT(epoch FROM ends_at - starts_at),"
    " ARRAY[3601, 14401, 57601, 230401, 921601, 3686401, 14745601]::numeric[])"
)


def upgrade() -> None:
    # IF NOT EXISTS, because a migration that builds indexes concurrently is run again if it is interrupted.
    for owner in OWNERS:
        op.execute(f"ALTER TABLE reservations ADD COLUMN IF NOT EXISTS {owner} varchar(64)")
    with op.get_context().autocommit_block():
        while op.get_bind().exec_driver_sql(FILL, (BATCH,)).rowcount:
            pass
        for name, definition in _indexes().items():
            op.execute(f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {name} ON reservations {definition}")
    # After the transaction that locked the reservations: two locked tables may deadlock with requests.
    op.execute("ALTER TABLE items ADD COLUMN IF NOT EXISTS provider varchar(64)")


#: No item has a provider yet.
FILL = """
    UPDATE reservations SET venue = items.venue FROM items
    WHERE items.id = reservations.item_id AND reservations.id IN (
        SELECT reservations.id FROM items JOIN reservations ON reservations.item_id = items.id
        WHERE items.venue IS NOT NULL AND reservations.venue IS NULL LIMIT %s
    )
"""


def downgrade() -> None:
    op.execute("ALTER TABLE items DROP COLUMN IF EXISTS provider")
    with op.get_context().autocommit_block():
        for name in _indexes():
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
    for owner in OWNERS:
        op.execute(f"ALTER TABLE reservations DROP COLUMN IF EXISTS {owner}")


def _indexes() -> dict[str, str]:
    """Return the indexes of the lists, and of the lists by time."""
    by_status = {f"ix_reservations_{one}_status_id": f"({one}, status, id) WHERE {one} IS NOT NULL" for one in OWNERS}
    by_time = {
        f"ix_reservations_{one}_time": f"({one}, {CLASS}, starts_at, id) WHERE starts_at IS NOT NULL AND {one} IS NOT NULL"
        for one in OWNERS
    }
    return by_status | by_time
