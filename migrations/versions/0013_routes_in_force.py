"""The routes by which every process records."""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE outbox_routes (
            id SMALLINT DEFAULT 1 NOT NULL,
            destinations JSONB NOT NULL,
            changed_at timestamptz DEFAULT clock_timestamp() NOT NULL,
            CONSTRAINT pk_outbox_routes PRIMARY KEY (id),
            CONSTRAINT ck_outbox_routes_only_one CHECK (id = 1)
        )
    """)


def downgrade() -> None:
    op.execute("DROP TABLE IF EXISTS outbox_routes")
