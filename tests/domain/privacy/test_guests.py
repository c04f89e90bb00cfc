"""Guests in the table: encrypted field by field, read by their keys, found by hashes, and forgotten for good."""

from dataclasses import asdict, replace

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError

from domain.privacy import Keyring, Person, forget, guests, open_guest, rotate, seal
from domain.privacy.encryption import normalised_email, normalised_telephone
from domain.privacy.table import guests as table
from domain.reservations import Reservation, of_guests
from domain.runtime.errors import GuestForgotten, GuestUnreadable
from tests.domain.privacy.people import ANN, BOB, a_guest, keyring
from tests.support.builders import Db, a_request, an_item, reserve


def person_of(db: Db, keys: Keyring, reservation: Reservation) -> Person:
    with db.begin() as session:
        return open_guest(keys, guests.read(session, reservation.id))


def find(db: Db, keys: Keyring, email: str) -> list[object]:
    with db.begin() as session:
        return list(of_guests.find(session, guests.with_email(keys, email), limit=10))


@pytest.mark.parametrize("person", [ANN, BOB])
def test_a_guest_is_read_as_they_were_stored(db: Db, person: Person) -> None:
    assert person_of(db, keyring("one"), a_guest(db, keyring("one"), person)) == person


def test_a_set_of_reservations_stores_the_guests_of_those_that_have_one(db: Db) -> None:
    item, keys = an_item(db), keyring("one")
    with_guests = [a_request(item, guest=seal(keys, person)) for person in (ANN, BOB)]

    reserve(db, with_guests[0], a_request(item), with_guests[1])

    with db.begin() as session:
        stored = session.execute(select(table.c.reservation_id)).scalars().all()
        people = [open_guest(keys, guests.read(session, one)) for one in stored]
    assert sorted(one.name for one in people) == ["Ann", "Bob"]


def test_no_two_guests_share_a_data_key(db: Db) -> None:
    keys = keyring("one")
    ann, again = seal(keys, ANN), seal(keys, ANN)

    with pytest.raises(GuestUnreadable):
        open_guest(keys, replace(again, name=ann.name))
    with pytest.raises(GuestUnreadable):
        open_guest(keys, replace(again, id=ann.id))
    with pytest.raises(GuestUnreadable):
        open_guest(keys, replace(ann, name=ann.email or b""))


def test_nothing_that_is_shown_of_a_person_has_personal_data() -> None:
    shown = f"{ANN} {ANN!r} {seal(keyring('one'), ANN)}"

    assert not any(value in shown for value in asdict(ANN).values())


@pytest.mark.parametrize(
    ("one", "other"),
    [("Ann@Example.COM", "ann@example.com"), ("STRASSE@x.de", "straße@x.de"), ("ame\u0301lie@x", "AM\u00c9LIE@x")],
)
def test_addresses_that_mean_the_same_are_found_by_each_other(one: str, other: str) -> None:
    assert normalised_email(one) == normalised_email(other)


@pytest.mark.parametrize("written", ["+49 30 123", "+49-30/123", " (+49) 30 123", "+٤٩٣٠١٢٣"])
def test_numbers_are_compared_by_their_digits_and_the_plus(written: str) -> None:
    assert normalised_telephone(written) == "+4930123"
    assert normalised_telephone("49 30 123") == "4930123"


def test_a_guest_is_found_by_whichever_key_their_row_has(db: Db) -> None:
    old = a_guest(db, keyring("old"))
    new = a_guest(db, keyring("new", "old"))

    assert find(db, keyring("new", "old"), "ann@EXAMPLE.com") == [new.id, old.id]
    assert find(db, keyring("new"), "ann@example.com") == [new.id]


def test_a_forgotten_guest_is_neither_read_nor_found_nor_given_another_name(db: Db) -> None:
    keys, reservation = keyring("one"), a_guest(db, keyring("one"))
    other = a_guest(db, keys, BOB)

    with db.begin() as session:
        assert forget(session, [reservation.id]) == 1
    with db.begin() as session:
        assert forget(session, [reservation.id]) == 0

    with db.begin() as session:
        with pytest.raises(GuestForgotten):
            guests.read(session, reservation.id)
        assert isinstance(guests.change(session, reservation.id, seal(keys, ANN)), GuestForgotten)
    assert rotate(db, keyring("two", "one"), "one").rotated == 1
    assert find(db, keys, "ann@example.com") == []
    assert person_of(db, keyring("two"), other) == BOB


def test_the_database_keeps_nothing_of_a_forgotten_guest(db: Db) -> None:
    reservation = a_guest(db, keyring("one"))

    with pytest.raises(IntegrityError, match="ck_guests_forgotten_whole"), db.begin() as session:
        session.execute(text("UPDATE guests SET forgotten_at = now(), wrapped_key = NULL"))
    with db.begin() as session:
        forget(session, [reservation.id])
        left = session.execute(select(table)).one()._mapping
    assert {name for name, value in left.items() if value is not None} == {
        "id",
        "reservation_id",
        "key_id",
        "created_at",
        "forgotten_at",
    }


def test_another_person_who_has_taken_the_place_meanwhile_is_not_forgotten(db: Db) -> None:
    keys = keyring("one")
    found, other = a_guest(db, keys), a_guest(db, keys)
    with db.begin() as session:
        guests.change(session, other.id, seal(keys, BOB))

    with db.begin() as session:
        assert forget(session, [found.id, other.id], guests.with_email(keys, "ann@example.com")) == 1

    assert person_of(db, keys, other) == BOB
