"""Items may be calendars, and reservations may be of time.

Code of earlier releases does not free the time of a reservation that it cancels, so calendars should be created when no
such code runs any more. `bin/doctor` finds what was left.
"""

from collections.abc import Sequence

from alembic import context, op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

#: The new constraints hold for whatever earlier code writes.
serves_from = "0003"

#: What keeps it from being taken back, and why: `bin/migrate` looks before it takes any step back, unless to `base`.
irreversible_while = "EXISTS (SELECT FROM items WHERE kind = 'calendar')"
irreversible_because = (
    "there are calendars, and their reservations would lose their time. An earlier release can only be used with a"
    " backup from before there were calendars"
)

#: The columns of items, and of reservations. IF NOT EXISTS, because an interrupted migration is run again.
ITEMS = (
    "kind VARCHAR(20) NOT NULL DEFAULT 'stock'",
    "capacity INTEGER",
    "time_zone VARCHAR(64)",
    "buffer_before_seconds INTEGER",
    "buffer_after_seconds INTEGER",
    "opening_hours TEXT",
    "venue VARCHAR(64)",
)
RESERVATIONS = ("starts_at timestamptz", "ends_at timestamptz")

#: The constraints of items, by name.
CHECKS = {
    "ck_items_kind_known": "kind IN ('stock', 'calendar')",
    "ck_items_capacity_positive": "capacity > 0",
    "ck_items_calendar_complete": (
        "kind <> 'calendar' OR (capacity IS NOT NULL AND time_zone IS NOT NULL AND stock_quantity = 0"
        " AND buffer_before_seconds IS NOT NULL AND buffer_after_seconds IS NOT NULL)"
    ),
}
#: The class of the duration, of which each is four times as long as the one before.
CLASS = (
    "width_bucket(EXTRACT(epoch FROM ends_at - starts_at),"
    " ARRAY[3601, 14401, 57601, 230401, 921601, 3686401, 14745601]::numeric[])"
)

#: The columns with which the indexes begin that find what overlaps a window.
LISTED_BY = {
    "ix_reservations_guest_id_time": "guest_id, ",
    "ix_reservations_item_id_time": "item_id, ",
    "ix_reservations_status_time": "status, ",
    "ix_reservations_time": "",
}

PERIOD = (
    "(starts_at IS NULL AND ends_at IS NULL) OR (starts_at IS NOT NULL AND ends_at IS NOT NULL AND starts_at < ends_at)"
)


def upgrade() -> None:
    _add_columns("items", ITEMS)
    for name, condition in CHECKS.items():
        _add_check("items", name, condition)
    with op.get_context().autocommit_block():
        for name in CHECKS:
            op.execute(f"ALTER TABLE items VALIDATE CONSTRAINT {name}")
        op.execute(
            "CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_items_venue_id ON items (venue, id) WHERE venue IS NOT NULL"
        )
    _add_columns("reservations", RESERVATIONS)
    # A hold of a calendar may have no end.
    op.execute("ALTER TABLE reservations DROP CONSTRAINT IF EXISTS ck_reservations_hold_expires")
    _add_check("reservations", "ck_reservations_period_whole", PERIOD)
    with op.get_context().autocommit_block():
        op.execute("ALTER TABLE reservations VALIDATE CONSTRAINT ck_reservations_period_whole")
    _add_columns("reservation_lines", RESERVATIONS)
    with op.get_context().autocommit_block():
        for name, columns in LISTED_BY.items():
            guests = " AND guest_id IS NOT NULL" if "guest_id" in columns else ""
            key = f"{columns}{CLASS}, starts_at, id"
            op.execute(
                f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {name} ON reservations ({key})"
                f" WHERE starts_at IS NOT NULL{guests}"
            )
        op.execute(
            "CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_reservation_lines_item_id_time ON reservation_lines"
            f" (item_id, {CLASS}, starts_at, reservation_id) WHERE starts_at IS NOT NULL"
        )
    # No foreign key leads to the items: it would lock a second table that requests use.
    op.execute("""
        CREATE TABLE calendar_occupancies (
            reservation_id UUID NOT NULL,
            position SMALLINT NOT NULL,
            item_id BIGINT NOT NULL,
            units INTEGER NOT NULL,
            blocked_from timestamptz NOT NULL,
            blocked_until timestamptz NOT NULL,
            held_until timestamptz,
            is_exclusive BOOLEAN NOT NULL,
            CONSTRAINT pk_calendar_occupancies PRIMARY KEY (reservation_id, position),
            CONSTRAINT ck_calendar_occupancies_not_empty CHECK (blocked_from < blocked_until),
            CONSTRAINT ck_calendar_occupancies_units_positive CHECK (units > 0),
            CONSTRAINT fk_calendar_occupancies_reservation_id FOREIGN KEY(reservation_id) REFERENCES reservations (id),
            CONSTRAINT ex_calendar_occupancies_time EXCLUDE USING gist (
                int8range(item_id, item_id, '[]') WITH &&, tstzrange(blocked_from, blocked_until) WITH &&
            ) WHERE (is_exclusive)
        );

        CREATE INDEX ix_calendar_occupancies_time ON calendar_occupancies
            USING gist (int8range(item_id, item_id, '[]'), tstzrange(blocked_from, blocked_until))
            WHERE NOT is_exclusive;
    """)


def downgrade() -> None:
    """Go back only without calendars, or to an empty database. It can be run again at any point."""
    if context.get_revision_argument() is not None:
        _require_reversible()
        _add_check("reservations", "ck_reservations_hold_expires", "status <> 'PENDING' OR expires_at IS NOT NULL")
        with op.get_context().autocommit_block():
            op.execute("ALTER TABLE reservations VALIDATE CONSTRAINT ck_reservations_hold_expires")
    op.execute("DROP TABLE IF EXISTS calendar_occupancies")
    with op.get_context().autocommit_block():
        for name in (*LISTED_BY, "ix_reservation_lines_item_id_time"):
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
    _drop_columns("reservation_lines", RESERVATIONS)
    with op.get_context().autocommit_block():
        pass  # which commits: the other table is changed in a transaction of its own
    _drop_columns("reservations", RESERVATIONS)
    _drop_columns("items", ITEMS)


def _require_reversible() -> None:
    """Fail if somebody has created a calendar since `bin/migrate` has looked."""
    op.execute(f"""
        DO $$ BEGIN
            IF {irreversible_while} THEN
                RAISE EXCEPTION '{irreversible_because}';
            END IF;
        END $$
    """)


def _add_columns(table: str, columns: Sequence[str]) -> None:
    op.execute(f"ALTER TABLE {table} {', '.join(f'ADD COLUMN IF NOT EXISTS {column}' for column in columns)}")


def _drop_columns(table: str, columns: Sequence[str]) -> None:
    names = (column.split()[0] for column in columns)
    op.execute(f"ALTER TABLE {table} {', '.join(f'DROP COLUMN IF EXISTS {name}' for name in names)}")


def _add_check(table: str, name: str, condition: str) -> None:
    op.execute(f"""
        DO $$ BEGIN
            IF NOT EXISTS (SELECT FROM pg_constraint WHERE conname = '{name}') THEN
                ALTER TABLE {table} ADD CONSTRAINT {name} CHECK ({condition}) NOT VALID;
            END IF;
        END $$
    """)
