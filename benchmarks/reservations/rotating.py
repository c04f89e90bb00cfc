"""Keys of personal data: how fast the data keys of guests are wrapped by another key."""

import time
from collections.abc import Iterator, Sequence
from uuid import UUID

import psycopg
from sqlalchemy.orm import Session, sessionmaker

from benchmarks.environment import Environment
from benchmarks.measure import Measure, compare, median
from domain.privacy import Keyring, Person, SealedGuest, guests, rotate, seal
from domain.privacy.keyring import new_key
from domain.privacy.rotation import BATCH
from domain.runtime import database
from domain.runtime.identity import LOWEST_ID
from domain.runtime.settings import Settings

GUESTS = 20_000

ROUNDS = 3

#: What is agreed for any machine.
GUESTS_A_SECOND = 5_000

OLD, NEW = new_key("old"), new_key("new")


def rotating(environment: Environment) -> Iterator[Measure]:
    """The rotation of the keys of guests, against a bare SQL loop."""
    engine = database.connect(Settings.load(), connections=1)
    db = database.sessions(engine)
    by_old, by_both = Keyring.read(OLD), Keyring.read(f"{NEW},{OLD}")
    sealed = [seal(by_old, _person(number)) for number in range(GUESTS)]
    ours, bare = [], []
    for _ in range(ROUNDS):
        _fill(environment, sealed)
        ours.append(_rotate(db, by_both))
        _fill(environment, sealed)
        bare.append(_bare_loop(environment))
    engine.dispose()
    yield compare("guests rotated/s", median(ours), median(bare), named="bare SQL loop", at_least=0.25)
    yield Measure(
        what="guests rotated/s, on any machine",
        measured=f"{median(ours):,.0f}",
        budget=f"≥ {GUESTS_A_SECOND:,}",
        met=median(ours) >= GUESTS_A_SECOND,
        numbers={"measured": median(ours), "budget": GUESTS_A_SECOND},
    )


def _person(number: int) -> Person:
    return Person(
        name=f"Guest {number}",
        email=f"guest-{number}@example.com",
        telephone=f"+351 {number:09}",
        special_requests="A quiet room, please",
    )


def _fill(environment: Environment, sealed: Sequence[SealedGuest]) -> None:
    """Clear the database, and give these guests a reservation each."""
    environment.clear()
    with environment.connect() as connection:
        made = connection.execute(
            "INSERT INTO reservations (id, item_id, quantity, status)"
            " SELECT gen_random_uuid(), 1, 1, 'CONFIRMED' FROM generate_series(1, %s) RETURNING id",
            [len(sealed)],
        )
        columns = ", ".join(guests.COLUMNS)
        with connection.cursor() as cursor, cursor.copy(f"COPY guests (reservation_id, {columns}) FROM STDIN") as into:
            for (reservation_id,), one in zip(made.fetchall(), sealed, strict=True):
                into.write_row([reservation_id, *(getattr(one, name) for name in guests.COLUMNS)])
        connection.execute("VACUUM (ANALYZE)")
        connection.execute("CHECKPOINT")


def _rotate(db: sessionmaker[Session], keys: Keyring) -> float:
    """Rotate all guests as `bin/rotate-keys` does. Return guests/s."""
    begun, rotated = time.monotonic(), 0
    after: UUID | None = LOWEST_ID
    while after is not None:
        batch = rotate(db, keys, "old", after=after)
        rotated, after = rotated + batch.rotated, batch.last
    took = time.monotonic() - begun
    assert rotated == GUESTS, rotated
    return rotated / took


def _bare_loop(environment: Environment) -> float:
    """Fetch and update the same rows in the same batches, in plain SQL: nothing is decrypted. Return guests/s."""
    fetch = (
        "SELECT * FROM guests WHERE key_id = 'old' AND wrapped_key IS NOT NULL AND id > %s"
        f" ORDER BY id LIMIT {BATCH} FOR UPDATE"
    )
    change = (
        "UPDATE guests SET key_id = 'new', wrapped_key = wrapped_key || '', email_hash = email_hash || '',"
        " telephone_hash = telephone_hash || '' WHERE id = ANY(%s)"
    )
    after, rotated = LOWEST_ID, 0
    with psycopg.connect(environment.url) as connection:
        begun = time.monotonic()
        while rows := connection.execute(fetch, [after]).fetchall():
            connection.execute(change, [[row[0] for row in rows]])
            connection.commit()
            after, rotated = rows[-1][0], rotated + len(rows)
        took = time.monotonic() - begun
    assert rotated == GUESTS, rotated
    return rotated / took
