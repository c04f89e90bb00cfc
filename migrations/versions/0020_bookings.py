"""Bookings: a reservation of time for a guest, with a reference, a price, and what outside services did for it.

Items may have a list price.
"""

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

#: Earlier code neither reads nor writes what is new.
serves_from = "0003"

PRICE_IS_COMPLETE = "ck_items_price_complete"
REFERENCE_IS_UNIQUE = "uq_reservations_booking_reference"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE IF NOT EXISTS bookings (
            reservation_id uuid NOT NULL,
            venue_type varchar(50),
            venue_name varchar(255) NOT NULL,
            time_zone varchar(64) NOT NULL,
            internal_notes text,
            base_price numeric(18, 4),
            tax_amount numeric(18, 4),
            discount_amount numeric(18, 4),
            total_price numeric(18, 4),
            currency varchar(3),
            price_source varchar(20),
            inventory varchar(20),
            pricing varchar(20),
            payment varchar(20),
            confirmation varchar(20),
            inventory_reservation_id varchar(255),
            payment_intent_id varchar(255),
            terms_version integer DEFAULT 1 NOT NULL,
            former_terms text,
            CONSTRAINT pk_bookings PRIMARY KEY (reservation_id),
            CONSTRAINT fk_bookings_reservation_id
                FOREIGN KEY (reservation_id) REFERENCES reservations (id)
        )
    """)
    op.execute("ALTER TABLE reservations ADD COLUMN IF NOT EXISTS booking_reference varchar(20)")
    with op.get_context().autocommit_block():
        op.execute(f"""
            CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS {REFERENCE_IS_UNIQUE}
            ON reservations (booking_reference) WHERE booking_reference IS NOT NULL
        """)
    # After the transaction that locked the reservations: two locked tables may deadlock with requests.
    for column in ("price_amount numeric(18, 4)", "price_currency varchar(3)", "price_per varchar(20)"):
        op.execute(f"ALTER TABLE items ADD COLUMN IF NOT EXISTS {column}")
    op.execute(f"""
        ALTER TABLE items DROP CONSTRAINT IF EXISTS {PRICE_IS_COMPLETE},
            ADD CONSTRAINT {PRICE_IS_COMPLETE} CHECK (
                (price_amount IS NULL) = (price_currency IS NULL) AND (price_amount IS NULL) = (price_per IS NULL)
                AND (price_amount IS NULL OR price_amount >= 0)
            ) NOT VALID
    """)
    with op.get_context().autocommit_block():
        op.execute(f"ALTER TABLE items VALIDATE CONSTRAINT {PRICE_IS_COMPLETE}")


def downgrade() -> None:
    op.execute(f"ALTER TABLE items DROP CONSTRAINT IF EXISTS {PRICE_IS_COMPLETE}")
    for column in ("price_amount", "price_currency", "price_per"):
        op.execute(f"ALTER TABLE items DROP COLUMN IF EXISTS {column}")
    with op.get_context().autocommit_block():
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {REFERENCE_IS_UNIQUE}")
    op.execute("ALTER TABLE reservations DROP COLUMN IF EXISTS booking_reference")
    op.execute("DROP TABLE IF EXISTS bookings")
