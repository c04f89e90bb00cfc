"""The public keys of identity providers, for processes that start while their provider is down."""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

#: Earlier code does not know of the table.
serves_from = "0003"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE identity_provider_keys (
            source VARCHAR(64) NOT NULL,
            document TEXT NOT NULL,
            read_at timestamptz DEFAULT clock_timestamp() NOT NULL,
            CONSTRAINT pk_identity_provider_keys PRIMARY KEY (source)
        )
    """)


def downgrade() -> None:
    op.execute("DROP TABLE IF EXISTS identity_provider_keys")
