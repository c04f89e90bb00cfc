"""Keys that guests need and that are not there: they are found by a few rows, however many guests there are."""

import base64

import pytest
from sqlalchemy import text

from domain.privacy import Keyring, forget, key_check
from domain.privacy.key_check import samples, unusable
from tests.domain.privacy.people import a_guest, keyring, many_guests
from tests.support.builders import Db

#: A key with the id of another one.
WRONG = Keyring.read(f"old:{base64.b64encode(bytes(32)).decode()}")


def unusable_of(db: Db, keys: Keyring) -> list[str]:
    with db.begin() as session:
        found = samples(session)
    return list(unusable(keys, found))


def test_keys_that_guests_need_and_that_are_missing_are_found(db: Db) -> None:
    assert unusable_of(db, keyring("new")) == []
    for key_id in ("new", "older", "old", "new"):
        a_guest(db, keyring(key_id))

    assert unusable_of(db, keyring("new")) == ["old", "older"]
    assert unusable_of(db, keyring("new", "old", "older")) == []


def test_a_key_that_is_another_one_than_it_was_is_found(db: Db) -> None:
    a_guest(db, keyring("old"))

    assert unusable_of(db, WRONG) == ["old"]


@pytest.mark.parametrize("first", ["right", "wrong"])
def test_guests_who_were_encrypted_by_another_key_for_a_while_are_found(db: Db, first: str) -> None:
    order = [keyring("old"), WRONG] if first == "right" else [WRONG, keyring("old")]
    for keys in order:
        a_guest(db, keys)

    assert unusable_of(db, keyring("old")) == ["old"]


def test_a_key_that_only_forgotten_guests_had_is_not_missed(db: Db) -> None:
    reservation = a_guest(db, keyring("old"))
    with db.begin() as session:
        forget(session, [reservation.id])

    assert unusable_of(db, keyring("new")) == []


def test_few_rows_are_read_however_many_guests_there_are(db: Db) -> None:
    many_guests(db, keyring("old"), 3_000)
    many_guests(db, keyring("new"), 3_000)
    with db.begin() as session:
        session.execute(text("ANALYZE guests"))
        samples(session)
        explained = str(key_check._SAMPLES.compile(session.connection(), compile_kwargs={"literal_binds": True}))
        plan = "\n".join(session.execute(text(f"EXPLAIN (ANALYZE, COSTS OFF) {explained}")).scalars())

    assert "Seq Scan on guests" not in plan and "Sort" not in plan, plan
    assert "rows=3000" not in plan, plan
