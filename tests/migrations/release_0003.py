"""The release whose code needs the schema 0003, as far as migrations matter to it: its columns, its locks.

It runs beside each later migration and beside the code of now. When a migration no longer serves it, replace it by the
oldest release that is served.
"""

from typing import Any
from uuid import UUID, uuid4

import psycopg

REVISION = "0003"

#: The columns that this release reads of a reservation, of an outbox row and of an answer.
RESERVATION = (
    "id, item_id, quantity, status, version, expires_at, guest_id, source, note, metadata, cancellation_reason,"
    " cancelled_by, created_at, updated_at, confirmed_at, checked_in_at, completed_at, cancelled_at"
)
ROW = "id, event_id, aggregate_id, type, payload::text, headers::text, attempts, created_at, unreachable_at"
ANSWER = "client_id, operation, idempotency_key, payload_hash, reservation_id, answer, created_at"

CREATE_ITEM = """
    INSERT INTO items (sku, name, available_quantity, stock_quantity)
    VALUES (%s, 'Thing', 1000000, 1000000) RETURNING id
"""
REGISTER_LANES = "INSERT INTO outbox_lanes (destination, lane) SELECT %s, lane FROM generate_series(0, 31) AS lane"
REGISTER = "INSERT INTO outbox_destinations (name) VALUES (%s)"

LOCK_ITEM = "SELECT id, sku, name, available_quantity, stock_quantity FROM items WHERE id = %s FOR NO KEY UPDATE"
MOVE_STOCK = "UPDATE items SET available_quantity = available_quantity - 1, updated_at = now() WHERE id = %s"
LOOK_UP = f"SELECT {ANSWER} FROM idempotency_requests WHERE (client_id, operation, idempotency_key) = ('c', 'o', %s)"
STORE = """
    INSERT INTO idempotency_requests (client_id, operation, idempotency_key, payload_hash, reservation_id, answer)
    VALUES ('c', 'o', %s, 'h', %s, '{}') ON CONFLICT DO NOTHING RETURNING idempotency_key
"""
COPY_RESERVATION = """
    COPY reservations (id, item_id, idempotency_key, quantity, status, expires_at, guest_id, source, note, metadata,
        created_at, updated_at) FROM STDIN
"""
COPY_HISTORY = "COPY reservation_history (reservation_id, from_status, to_status, changed_by, reason) FROM STDIN"
COPY_ROW = "COPY outbox (event_id, destination, lane, aggregate_id, type, payload, headers) FROM STDIN"

LOCK_RESERVATION = f"SELECT {RESERVATION} FROM reservations WHERE id = %s FOR NO KEY UPDATE"
CONFIRM = """
    UPDATE reservations SET status = 'CONFIRMED', version = version + 1, updated_at = now(), confirmed_at = now()
    WHERE id = %s
"""
LIST = f"SELECT {RESERVATION} FROM reservations WHERE item_id = %s ORDER BY id DESC LIMIT 50"

CLAIM = """
    UPDATE outbox_lanes SET epoch = epoch + 1, holder = 'old', leased_until = clock_timestamp() + interval '4 s'
    WHERE destination = %s AND lane = %s RETURNING destination, lane, epoch, holder, low_watermark
"""
FETCH = f"""
    SELECT {ROW} FROM outbox
    WHERE destination = %s AND lane = %s AND processed_at IS NULL AND dead_at IS NULL AND available_at IS NULL
    ORDER BY id LIMIT 100
"""
PROCESSED = """
    UPDATE outbox SET processed_at = clock_timestamp()
    WHERE id = ANY(%s) AND processed_at IS NULL AND dead_at IS NULL
"""
RELEASE = """
    UPDATE outbox_lanes SET holder = NULL, leased_until = NULL, low_watermark = %s
    WHERE destination = %s AND lane = %s AND epoch = %s RETURNING epoch
"""
STATUS = """
    SELECT name, paused, open_until, opened_at, failures, recovered_at, reason FROM outbox_destinations WHERE name = %s
"""

EXPIRE = f"""
    SELECT {RESERVATION} FROM reservations WHERE status = 'PENDING' AND expires_at <= statement_timestamp()
    ORDER BY expires_at LIMIT 500 FOR NO KEY UPDATE SKIP LOCKED
"""
PRUNE = """
    DELETE FROM outbox WHERE id = ANY(ARRAY(
        SELECT id FROM outbox WHERE processed_at < now() - interval '1000 days' ORDER BY processed_at LIMIT 5000
        FOR UPDATE SKIP LOCKED
    ))
"""


class Release0003:
    """A client of that release. All its statements are prepared before the migration begins, but for COPY."""

    def __init__(self, url: str, *, lock_milliseconds: int) -> None:
        self._connection = psycopg.connect(url, autocommit=True, options=f"-c lock_timeout={lock_milliseconds}")
        # psycopg prepares a statement at its second execution.
        self._connection.prepare_threshold = 1
        self._name = f"old-{uuid4().hex[:8]}"
        ((self._item,),) = self._do(CREATE_ITEM, self._name)
        self._do(REGISTER_LANES, self._name)
        self._do(REGISTER, self._name)

    def do_all(self) -> None:
        reservation_id = uuid4()
        self._reserve(reservation_id)
        self._confirm(reservation_id)
        assert self._do(LIST, self._item)
        self._deliver(reservation_id.int % 32)
        self._do(EXPIRE)
        self._do(PRUNE)

    def _reserve(self, reservation_id: UUID) -> None:
        key = str(reservation_id)
        with self._connection.transaction():
            self._do(LOCK_ITEM, self._item)
            assert not self._do(LOOK_UP, key)
            self._copy(
                COPY_RESERVATION,
                *(reservation_id, self._item, key, 1, "PENDING", "tomorrow", "guest", "api", None, None, "now", "now"),
            )
            self._copy(COPY_HISTORY, reservation_id, None, "PENDING", "api", None)
            self._record(reservation_id)
            self._do(MOVE_STOCK, self._item)
            assert self._do(STORE, key, reservation_id)

    def _confirm(self, reservation_id: UUID) -> None:
        with self._connection.transaction():
            assert self._do(LOCK_RESERVATION, reservation_id)
            self._do(CONFIRM, reservation_id)
            self._copy(COPY_HISTORY, reservation_id, "PENDING", "CONFIRMED", "api", None)
            self._record(reservation_id)

    def _record(self, reservation_id: UUID) -> None:
        self._copy(
            COPY_ROW, uuid4(), self._name, reservation_id.int % 32, reservation_id, "booking.created", "{}", "{}"
        )

    def _deliver(self, lane: int) -> None:
        ((_, _, epoch, _, _),) = self._do(CLAIM, self._name, lane)
        assert self._do(STATUS, self._name)
        ids = [row[0] for row in self._do(FETCH, self._name, lane)]
        with self._connection.transaction():
            assert self._do(RELEASE, ids[-1], self._name, lane, epoch)
            self._do(PROCESSED, ids)

    def _do(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        cursor = self._connection.execute(statement, parameters)
        return cursor.fetchall() if cursor.description else []

    def _copy(self, statement: str, *values: object) -> None:
        with self._connection.cursor() as cursor, cursor.copy(statement) as into:
            into.write_row(values)

    def close(self) -> None:
        self._connection.close()
