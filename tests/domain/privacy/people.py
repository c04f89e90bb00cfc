"""Keys, people, and reservations of theirs."""

import base64
from collections.abc import Mapping
from typing import Any

from sqlalchemy import insert, text

from domain.privacy import Keyring, Person, guests, seal
from domain.privacy.table import guests as table
from domain.reservations import Reservation
from tests.support.builders import Db, a_hold, an_item

ANN = Person(name="Ann", email="Ann@example.com", telephone="+49 30 1234567", special_requests="A quiet room")
BOB = Person(name="Bob")


def key(key_id: str) -> str:
    """A key as the settings have it. The same id always has the same key."""
    return f"{key_id}:{base64.b64encode(key_id.encode().ljust(32, b'.')).decode()}"


def keyring(*key_ids: str) -> Keyring:
    return Keyring.read(written(*key_ids))


def written(*key_ids: str) -> str:
    """These keys as the settings have them, the one that encrypts first."""
    return ",".join(map(key, key_ids))


def a_guest(db: Db, keys: Keyring, person: Person = ANN) -> Reservation:
    """A reservation with this guest."""
    reservation = a_hold(db, an_item(db))
    with db.begin() as session:
        assert guests.change(session, reservation.id, seal(keys, person)) is None
    return reservation


def many_guests(db: Db, keys: Keyring, number: int, *, email: str | None = None) -> None:
    """So many reservations with guests of different names and addresses, or of one address, made in bulk."""
    item = an_item(db)
    with db.begin() as session:
        made = session.execute(_RESERVATIONS, {"item": item.id, "number": number}).scalars().all()
        people = [
            Person(name=f"Guest {n}", email=email or f"{n}@x.example", telephone=f"+49 {n:07}") for n in range(number)
        ]
        session.execute(
            insert(table),
            [{"reservation_id": one, **_row(keys, person)} for one, person in zip(made, people, strict=True)],
        )


_RESERVATIONS = text("""
    WITH made AS (
        INSERT INTO reservations (id, item_id, quantity, status)
        SELECT gen_random_uuid(), :item, 1, 'CANCELLED' FROM generate_series(1, :number) RETURNING id
    ), noted AS (
        INSERT INTO reservation_history (reservation_id, to_status, changed_by, kind)
        SELECT id, 'CANCELLED', 'test', 'created' FROM made
    )
    SELECT id FROM made
""")


def _row(keys: Keyring, person: Person) -> Mapping[str, Any]:
    sealed = seal(keys, person)
    return {name: getattr(sealed, name) for name in guests.COLUMNS}
