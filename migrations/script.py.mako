"""${message}."""

from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None

#: The oldest revision whose code still runs: delete this if nothing is dropped, renamed or restricted.
serves_from = ${repr(up_revision)}


def upgrade() -> None:
    op.execute("")


def downgrade() -> None:
    op.execute("")
