"""Every list of reservations is read by an index, and metadata is kept as the client wrote it."""

from collections.abc import Iterable, Sequence

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

#: The columns of the indexes by which lists are read.
LISTED_BY = (
    ("status", "id"),
    ("item_id", "status", "id"),
    ("guest_id", "status", "id"),
    ("source", "status", "id"),
    ("guest_id", "item_id", "status", "id"),
    ("guest_id", "source", "status", "id"),
    ("item_id", "source", "status", "id"),
)

#: The columns of those that they replace. The release before reads its lists by the new ones, if not in their order.
REPLACED = (("item_id", "id"), ("guest_id", "id"))


def upgrade() -> None:
    _replace(REPLACED, by=LISTED_BY)
    # IF NOT EXISTS, because a migration that builds indexes concurrently is run again if it is interrupted.
    op.execute("ALTER TABLE reservations ADD COLUMN IF NOT EXISTS metadata_text TEXT")


def downgrade() -> None:
    _replace(LISTED_BY, by=REPLACED)
    op.execute("ALTER TABLE reservations DROP COLUMN metadata_text")


def _replace(old: Iterable[Sequence[str]], by: Iterable[Sequence[str]]) -> None:
    with op.get_context().autocommit_block():
        for columns in by:
            where = " WHERE guest_id IS NOT NULL" if "guest_id" in columns else ""
            definition = f"{_name(columns)} ON reservations ({', '.join(columns)}){where}"
            op.execute(f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {definition}")
        for columns in old:
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {_name(columns)}")


def _name(columns: Sequence[str]) -> str:
    return f"ix_reservations_{'_'.join(columns)}"
