"""Rotation: every guest gets the present key, beside all else that happens, and nobody is lost."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select, text

from domain.privacy import Keyring, forget, guests, open_guest, rotate, seal
from domain.privacy.guests import count_by_key
from domain.privacy.table import guests as table
from domain.reservations import of_guests
from domain.runtime.identity import LOWEST_ID
from tests.domain.privacy.people import ANN, BOB, a_guest, keyring, many_guests
from tests.support.builders import Db

OTHER_TRANSACTIONS = text(
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND xact_start IS NOT NULL"
    " AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
)

OLD, BOTH, NEW = keyring("old"), keyring("new", "old"), keyring("new")


class Hooked(Keyring):
    """A keyring that does something before it unwraps a data key."""

    def __init__(self, before: Callable[[], object]) -> None:
        super().__init__(BOTH._keys)
        self._before = before

    def unwrap(self, key_id: str, wrapped: bytes, row: bytes) -> bytes:
        self._before()
        return super().unwrap(key_id, wrapped, row)


def rotate_all(db: Db, keys: Keyring = BOTH, limit: int = 3) -> int:
    after, rotated = LOWEST_ID, 0
    while True:
        batch = rotate(db, keys, "old", after=after, limit=limit)
        rotated += batch.rotated
        if batch.last is None:
            return rotated
        after = batch.last


def keys_of(db: Db) -> dict[str, int]:
    with db.begin() as session:
        return dict(count_by_key(session))


def test_after_a_rotation_the_old_key_is_needed_for_nobody(db: Db) -> None:
    ann = a_guest(db, OLD)
    many_guests(db, OLD, 10)

    assert rotate_all(db) == 11

    assert keys_of(db) == {"new": 11}
    with db.begin() as session:
        assert open_guest(NEW, guests.read(session, ann.id)) == ANN
        assert of_guests.find(session, guests.with_email(NEW, "ann@example.com"), limit=10) == [ann.id]


def test_a_rotation_leaves_what_is_encrypted_as_it_was(db: Db) -> None:
    a_guest(db, OLD)
    fields = select(table.c.id, table.c.name, table.c.email, table.c.telephone, table.c.special_requests)
    with db.begin() as session:
        before = session.execute(fields).one()

    rotate_all(db)

    with db.begin() as session:
        assert session.execute(fields).one() == before


def test_of_two_rotations_at_once_each_guest_is_rotated_by_one(db: Db) -> None:
    many_guests(db, OLD, 6)
    meeting = threading.Barrier(2, timeout=60)

    def rotated() -> int:
        return rotate(db, Hooked(meeting.wait), "old").rotated

    with ThreadPoolExecutor(2) as threads:
        runs = [threads.submit(rotated) for _ in range(2)]
        assert sum(run.result() for run in runs) == 6

    assert keys_of(db) == {"new": 6}


def test_no_transaction_waits_for_a_key_service(db: Db) -> None:
    many_guests(db, OLD, 2)
    open_transactions = []

    def count() -> None:
        with db.begin() as session:
            open_transactions.append(session.execute(OTHER_TRANSACTIONS).scalar_one())

    assert rotate(db, Hooked(count), "old").rotated == 2

    assert open_transactions == [0, 0]


def test_a_guest_who_is_changed_or_forgotten_meanwhile_is_left_to_that(db: Db) -> None:
    changed, forgotten, rest = (a_guest(db, OLD) for _ in range(3))
    with db.begin() as session:
        guests.change(session, changed.id, seal(BOTH, BOB))
        forget(session, [forgotten.id])
        assert rotate(db, BOTH, "old").rotated == 1

    with db.begin() as session:
        assert open_guest(NEW, guests.read(session, changed.id)) == BOB
        assert open_guest(NEW, guests.read(session, rest.id)) == ANN
    assert keys_of(db) == {"new": 2}


def test_a_guest_who_can_not_be_read_stops_nobody_else(db: Db) -> None:
    damaged, other = a_guest(db, OLD), a_guest(db, OLD)
    with db.begin() as session:
        session.execute(text("UPDATE guests SET email = name WHERE reservation_id = :id"), {"id": damaged.id})
        row = guests.read(session, damaged.id).id

    batch = rotate(db, BOTH, "old")

    assert (batch.rotated, batch.unreadable) == (1, [row])
    with db.begin() as session:
        assert open_guest(NEW, guests.read(session, other.id)) == ANN


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_every_batch_begins_where_the_one_before_ended(db: Db, limit: int) -> None:
    many_guests(db, OLD, 4)

    assert rotate_all(db, limit=limit) == 4


def test_a_guest_whose_data_key_comes_back_damaged_is_named_and_the_others_rotated(db: Db) -> None:
    damaged, _ = a_guest(db, OLD), a_guest(db, OLD)
    with db.begin() as session:
        row = guests.read(session, damaged.id).id

    class Damaging(Keyring):
        def unwrap(self, key_id: str, wrapped: bytes, of: bytes) -> bytes:
            return b"short" if of == row.bytes else super().unwrap(key_id, wrapped, of)

    batch = rotate(db, Damaging(BOTH._keys), "old")

    assert (batch.rotated, batch.unreadable) == (1, [row])
