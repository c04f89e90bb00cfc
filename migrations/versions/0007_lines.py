"""A reservation may have several lines; the outside references of a client are unique."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("""
            CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS uq_reservations_client_id_external_reference
                ON reservations (client_id, external_reference) WHERE external_reference IS NOT NULL
        """)
    # No foreign key leads to the items: it would lock a second table that requests use.
    op.execute("""
        CREATE TABLE reservation_lines (
            reservation_id UUID NOT NULL,
            position SMALLINT NOT NULL,
            item_id BIGINT NOT NULL,
            quantity INTEGER NOT NULL,
            held_until timestamptz,
            CONSTRAINT pk_reservation_lines PRIMARY KEY (reservation_id, position),
            CONSTRAINT ck_reservation_lines_after_the_first CHECK (position > 1),
            CONSTRAINT ck_reservation_lines_quantity_positive CHECK (quantity > 0),
            CONSTRAINT fk_reservation_lines_reservation_id FOREIGN KEY(reservation_id) REFERENCES reservations (id)
        );

        CREATE INDEX ix_reservation_lines_item_id_reservation_id ON reservation_lines (item_id, reservation_id);

        CREATE INDEX ix_reservation_lines_item_holds ON reservation_lines (item_id, held_until)
            WHERE held_until IS NOT NULL;
    """)


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS uq_reservations_client_id_external_reference")
    op.execute("DROP TABLE reservation_lines")
