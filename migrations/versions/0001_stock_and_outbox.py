"""Stock, reservations and the outbox."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE items (
            id BIGINT GENERATED ALWAYS AS IDENTITY,
            sku VARCHAR(64) NOT NULL,
            name VARCHAR(255) NOT NULL,
            available_quantity INTEGER DEFAULT 0 NOT NULL,
            stock_quantity INTEGER DEFAULT 0 NOT NULL,
            created_at timestamptz DEFAULT now() NOT NULL,
            updated_at timestamptz DEFAULT now() NOT NULL,
            CONSTRAINT pk_items PRIMARY KEY (id),
            CONSTRAINT uq_items_sku UNIQUE (sku),
            CONSTRAINT ck_items_never_oversold CHECK (available_quantity >= 0),
            CONSTRAINT ck_items_available_within_stock CHECK (available_quantity <= stock_quantity)
        ) WITH (fillfactor = 50);

        CREATE TABLE reservations (
            id UUID NOT NULL,
            item_id BIGINT NOT NULL,
            idempotency_key VARCHAR(255),
            quantity INTEGER NOT NULL,
            status VARCHAR(20) NOT NULL,
            version INTEGER DEFAULT 1 NOT NULL,
            expires_at timestamptz,
            guest_id VARCHAR(64),
            source VARCHAR(50) DEFAULT 'api' NOT NULL,
            note TEXT,
            metadata JSONB,
            cancellation_reason TEXT,
            cancelled_by VARCHAR(255),
            created_at timestamptz DEFAULT now() NOT NULL,
            updated_at timestamptz DEFAULT now() NOT NULL,
            confirmed_at timestamptz,
            checked_in_at timestamptz,
            completed_at timestamptz,
            cancelled_at timestamptz,
            CONSTRAINT pk_reservations PRIMARY KEY (id),
            CONSTRAINT ck_reservations_quantity_positive CHECK (quantity > 0),
            CONSTRAINT ck_reservations_status_known CHECK (status IN ('PENDING', 'CONFIRMED', 'CHECKED_IN', 'COMPLETED', 'CANCELLED', 'REJECTED', 'EXPIRED', 'NO_SHOW', 'BLOCKED')),
            CONSTRAINT ck_reservations_hold_expires CHECK (status <> 'PENDING' OR expires_at IS NOT NULL),
            CONSTRAINT fk_reservations_item_id FOREIGN KEY(item_id) REFERENCES items (id)
        );

        CREATE INDEX ix_reservations_guest_id_id ON reservations (guest_id, id) WHERE guest_id IS NOT NULL;

        CREATE INDEX ix_reservations_item_holds ON reservations (item_id, expires_at) WHERE status = 'PENDING';

        CREATE INDEX ix_reservations_item_id_id ON reservations (item_id, id);

        CREATE INDEX ix_reservations_status_expires_at ON reservations (status, expires_at) WHERE status = 'PENDING';

        CREATE TABLE reservation_history (
            id BIGINT GENERATED ALWAYS AS IDENTITY,
            reservation_id UUID NOT NULL,
            from_status VARCHAR(20),
            to_status VARCHAR(20) NOT NULL,
            changed_by VARCHAR(255) NOT NULL,
            reason TEXT,
            created_at timestamptz DEFAULT clock_timestamp() NOT NULL,
            CONSTRAINT pk_reservation_history PRIMARY KEY (id),
            CONSTRAINT fk_reservation_history_reservation_id FOREIGN KEY(reservation_id) REFERENCES reservations (id)
        );

        CREATE INDEX ix_reservation_history_reservation_id ON reservation_history (reservation_id);

        CREATE TABLE idempotency_requests (
            client_id VARCHAR(255) NOT NULL,
            operation VARCHAR(50) NOT NULL,
            idempotency_key VARCHAR(255) NOT NULL,
            payload_hash VARCHAR(64) NOT NULL,
            reservation_id UUID,
            answer TEXT NOT NULL,
            created_at timestamptz DEFAULT now() NOT NULL,
            CONSTRAINT pk_idempotency_requests PRIMARY KEY (client_id, operation, idempotency_key),
            CONSTRAINT fk_idempotency_requests_reservation_id FOREIGN KEY(reservation_id) REFERENCES reservations (id)
        );

        CREATE INDEX ix_idempotency_requests_created_at ON idempotency_requests (created_at);

        CREATE TABLE outbox (
            id BIGINT GENERATED ALWAYS AS IDENTITY,
            event_id UUID NOT NULL,
            destination VARCHAR(64) NOT NULL,
            lane SMALLINT NOT NULL,
            aggregate_id UUID NOT NULL,
            type VARCHAR(50) NOT NULL,
            payload JSONB NOT NULL,
            headers JSONB DEFAULT '{}' NOT NULL,
            attempts SMALLINT DEFAULT 0 NOT NULL,
            available_at timestamptz,
            unreachable_at timestamptz,
            last_error TEXT,
            processed_at timestamptz,
            dead_at timestamptz,
            created_at timestamptz DEFAULT clock_timestamp() NOT NULL,
            CONSTRAINT pk_outbox PRIMARY KEY (id),
            CONSTRAINT uq_outbox_event_id_destination UNIQUE (event_id, destination),
            CONSTRAINT ck_outbox_lane_in_range CHECK (lane >= 0 AND lane < 32),
            CONSTRAINT ck_outbox_delivered_or_dead CHECK (processed_at IS NULL OR dead_at IS NULL)
        );

        CREATE INDEX ix_outbox_dead ON outbox (destination, id) WHERE dead_at IS NOT NULL;

        CREATE INDEX ix_outbox_ready ON outbox (destination, lane, id) WHERE processed_at IS NULL AND dead_at IS NULL AND available_at IS NULL;

        CREATE INDEX ix_outbox_waiting_aggregate ON outbox (destination, aggregate_id, id) WHERE processed_at IS NULL AND dead_at IS NULL AND available_at IS NOT NULL;

        CREATE INDEX ix_outbox_waiting_due ON outbox (destination, lane, available_at) WHERE processed_at IS NULL AND dead_at IS NULL AND available_at IS NOT NULL;

        CREATE TABLE outbox_lanes (
            destination VARCHAR(64) NOT NULL,
            lane SMALLINT NOT NULL,
            epoch BIGINT DEFAULT 0 NOT NULL,
            holder VARCHAR(64),
            leased_until timestamptz,
            CONSTRAINT pk_outbox_lanes PRIMARY KEY (destination, lane)
        ) WITH (fillfactor = 50);

        CREATE TABLE outbox_destinations (
            name VARCHAR(64) NOT NULL,
            paused BOOLEAN DEFAULT false NOT NULL,
            open_until timestamptz,
            failures INTEGER DEFAULT 0 NOT NULL,
            recovered_at timestamptz,
            reason TEXT,
            CONSTRAINT pk_outbox_destinations PRIMARY KEY (name)
        ) WITH (fillfactor = 50);
    """)


def downgrade() -> None:
    op.execute("""
        DROP TABLE outbox_destinations;
        DROP TABLE outbox_lanes;
        DROP TABLE outbox;
        DROP TABLE idempotency_requests;
        DROP TABLE reservation_history;
        DROP TABLE reservations;
        DROP TABLE items;
    """)
