"""Guests: the person that a reservation is for, encrypted field by field."""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

#: Earlier code does not know of guests, and never deletes a reservation.
serves_from = "0003"

#: The foreign key locks reservations as well, which requests use. A statement that gives up before PostgreSQL looks for
#: deadlocks, 1 s after a wait began, ends no request. It is tried again.
BRIEF = "SET LOCAL lock_timeout = '500ms';"

#: But an autovacuum ends itself only after that second. No request waits for this lock, and no autovacuum begins then.
WITHOUT_AUTOVACUUM = "LOCK TABLE reservations IN SHARE UPDATE EXCLUSIVE MODE"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE guests (
            id UUID NOT NULL,
            reservation_id UUID NOT NULL,
            key_id VARCHAR(50) NOT NULL,
            wrapped_key bytea,
            name bytea,
            email bytea,
            telephone bytea,
            special_requests bytea,
            email_hash bytea,
            telephone_hash bytea,
            created_at timestamptz DEFAULT clock_timestamp() NOT NULL,
            forgotten_at timestamptz,
            CONSTRAINT pk_guests PRIMARY KEY (id),
            CONSTRAINT uq_guests_reservation_id UNIQUE (reservation_id),
            CONSTRAINT ck_guests_forgotten_whole CHECK (
                CASE WHEN forgotten_at IS NULL THEN wrapped_key IS NOT NULL AND name IS NOT NULL ELSE
                num_nonnulls(wrapped_key, name, email, telephone, special_requests, email_hash, telephone_hash) = 0 END
            )
        )
    """)
    op.execute("""
        CREATE INDEX ix_guests_email_hash ON guests (email_hash, reservation_id) WHERE email_hash IS NOT NULL
    """)
    op.execute("""
        CREATE INDEX ix_guests_telephone_hash ON guests (telephone_hash, reservation_id)
        WHERE telephone_hash IS NOT NULL
    """)
    op.execute("CREATE INDEX ix_guests_key_id ON guests (key_id, id) WHERE wrapped_key IS NOT NULL")
    op.execute(WITHOUT_AUTOVACUUM)
    op.execute(f"""
        {BRIEF}
        ALTER TABLE guests ADD CONSTRAINT fk_guests_reservation_id
            FOREIGN KEY(reservation_id) REFERENCES reservations (id)
    """)


def downgrade() -> None:
    op.execute(WITHOUT_AUTOVACUUM)
    op.execute(f"{BRIEF} DROP TABLE IF EXISTS guests")
