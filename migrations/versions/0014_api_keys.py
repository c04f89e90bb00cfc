"""API keys, by which machines say who they are."""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE api_keys (
            key_id VARCHAR(16) NOT NULL,
            name VARCHAR(100) NOT NULL,
            secret_hash VARCHAR(64) NOT NULL,
            roles VARCHAR(20)[] NOT NULL,
            venues VARCHAR(64)[] NOT NULL,
            providers VARCHAR(64)[] NOT NULL,
            created_at timestamptz DEFAULT clock_timestamp() NOT NULL,
            expires_at timestamptz,
            revoked_at timestamptz,
            changed_at timestamptz DEFAULT clock_timestamp() NOT NULL,
            last_used_on date,
            CONSTRAINT pk_api_keys PRIMARY KEY (key_id)
        )
    """)
    op.execute("CREATE INDEX ix_api_keys_name ON api_keys (name)")
    op.execute("CREATE INDEX ix_api_keys_changed_at ON api_keys (changed_at)")


def downgrade() -> None:
    op.execute("DROP TABLE IF EXISTS api_keys")
