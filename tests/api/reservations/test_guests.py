"""The guests of reservations: kept exactly, shown at one place, and found by whoever may."""

import base64
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import select, text, update

from domain.idempotency import requests
from domain.privacy import Keyring, Person
from domain.privacy.table import guests
from domain.runtime.settings import Settings
from tests.domain.privacy.people import a_guest
from tests.support.api_process import Served, serving
from tests.support.builders import Db, an_item

ANN = {
    "name": "Ann Ólafsdóttir",
    "email": "Ann@Example.com",
    "telephone": "+49 (30) 1234-567",
    "special_requests": "A quiet room,\nplease",
}
KEYED = {"Idempotency-Key": "k"}


def reserve(api: httpx.Client, db: Db, guest: Any = ANN, **headers: str) -> httpx.Response:
    wanted = {"sku": an_item(db).sku, "quantity": 1, "guest": guest}
    return api.post("/reservations", json=wanted, headers=headers)


def guest_of(api: httpx.Client, reservation: httpx.Response) -> httpx.Response:
    assert reservation.status_code == 201, reservation.text
    return api.get(f"/reservations/{reservation.json()['id']}/guest")


def found(api: httpx.Client, **wanted: object) -> list[str]:
    answer = api.post("/guests/search", json=wanted)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["reservation_ids"])


def test_a_guest_is_shown_as_they_were_given_and_never_to_be_stored(api: httpx.Client, db: Db) -> None:
    shown = guest_of(api, reserve(api, db))

    assert shown.status_code == 200
    assert shown.json() == ANN
    assert shown.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "name",
    [
        "Nguyễn Thị Mai",
        "A\u030angstro\u0308m",
        "محمد\u200f بن سلمان",
        "שרה\u200e",
        "李小龍",
        "สมชาย",
        "ಕನ್ನಡ",
        "👩‍👩‍👧‍👦 Family",
        "O'Brien; DROP TABLE guests--",
        "Ж" * 200,
        "𝒜" * 200,
    ],
)
def test_a_name_in_any_script_is_kept_exactly(api: httpx.Client, db: Db, name: str) -> None:
    assert guest_of(api, reserve(api, db, {"name": name})).json()["name"] == name


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "   "),
        ("name", "\u200b\ufeff"),
        ("name", "\U000e0041"),
        ("name", "\u0301"),
        ("name", "x" * 201),
        ("name", "Ann\nBcc: x"),
        ("name", "Ann\x1b[31m"),
        ("name", "Ann\u2028Two"),
        ("name", "\u202etxt.exe"),
        ("name", "\u2066Ann"),
        ("name", "Ann\0"),
        ("name", None),
        ("name", 7),
        ("email", "x@" + "e" * 10_000),
        ("email", "nobody"),
        ("email", "a b@example.com"),
        ("email", "a@example.com\r\nX: y"),
        ("telephone", "call me"),
        ("telephone", "1" * 51),
        ("special_requests", "x" * 2_001),
        ("special_requests", "a\x07b"),
        ("special_requests", "a\u202eb"),
    ],
)
def test_what_can_not_be_a_guest_is_refused_by_its_field_without_repeating_it(
    api: httpx.Client, db: Db, field: str, value: Any
) -> None:
    wanted = {"name": "Ann Canary", "email": "canary@example.com", field: value}
    made = reserve(api, db)

    answers = (
        (reserve(api, db, wanted), f"guest.{field}"),
        (api.put(f"/reservations/{made.json()['id']}/guest", json=wanted), field),
    )

    for answer, named in answers:
        assert answer.status_code == 400
        assert answer.json()["field"] == named
        assert "anary" not in answer.text
        assert not isinstance(value, str) or len(value.strip()) < 4 or value not in answer.json()["detail"]
    assert guest_of(api, made).json() == ANN


def test_a_reservation_shows_the_account_and_never_the_person(api: httpx.Client, db: Db) -> None:
    made = reserve(api, db, ANN | {"id": "guest-42"}, **KEYED)

    assert made.json()["guest"] == {"id": "guest-42"}
    for shown in (made, api.get(f"/reservations/{made.json()['id']}"), api.get("/reservations")):
        assert not any(value in shown.text for value in ANN.values())


def test_a_guest_without_anything_is_refused(api: httpx.Client, db: Db) -> None:
    answer = reserve(api, db, {})

    assert (answer.status_code, answer.json()["field"]) == (400, "guest.id")


def test_the_same_request_twice_keeps_one_guest(api: httpx.Client, db: Db) -> None:
    wanted = {"sku": an_item(db).sku, "quantity": 1, "guest": ANN}

    first, again = (api.post("/reservations", json=wanted, headers=KEYED) for _ in range(2))

    assert first.text == again.text
    assert again.headers["Idempotency-Replayed"] == "true"
    with db.begin() as session:
        assert len(session.execute(select(guests.c.id)).all()) == 1


@pytest.mark.parametrize("other", [None, {"id": "x"}, ANN | {"name": "Bob"}, {"name": ANN["name"]}])
def test_a_key_that_comes_again_with_another_guest_is_refused(api: httpx.Client, db: Db, other: Any) -> None:
    wanted = {"sku": an_item(db).sku, "quantity": 1}
    api.post("/reservations", json=wanted | {"guest": ANN}, headers=KEYED)

    again = api.post("/reservations", json=wanted | ({"guest": other} if other else {}), headers=KEYED)

    assert again.status_code == 409
    assert again.json()["type"] == "/problems/idempotency-key-reused"


def test_a_repeat_is_answered_after_the_keys_were_rotated(api: httpx.Client, db: Db) -> None:
    wanted = {"sku": an_item(db).sku, "quantity": 1, "guest": ANN}
    first = api.post("/reservations", json=wanted, headers=KEYED)
    with db.begin() as session:
        stored = session.execute(select(requests.c.payload_hash)).scalar_one()
        plain, keyed = stored.split("#")
        by_another_key = f"{plain}#{'0' * len(keyed)}"
        session.execute(update(requests).values(payload_hash=by_another_key))

    assert api.post("/reservations", json=wanted, headers=KEYED).json() == first.json()
    assert api.post("/reservations", json=wanted | {"quantity": 2}, headers=KEYED).status_code == 409


def test_a_guest_is_changed_as_a_whole(api: httpx.Client, db: Db) -> None:
    made = reserve(api, db)
    path = f"/reservations/{made.json()['id']}/guest"

    changed = api.put(path, json={"name": "Bob", "email": "bob@example.com"}, headers=KEYED)
    again = api.put(path, json={"email": "bob@example.com", "name": "Bob"}, headers=KEYED)

    assert changed.json() == again.json() == {"reservation_id": made.json()["id"]}
    assert again.headers["Idempotency-Replayed"] == "true"
    assert api.put(path, json={"name": "Eve"}, headers=KEYED).status_code == 409
    assert api.get(path).json() == {
        "name": "Bob",
        "email": "bob@example.com",
        "telephone": None,
        "special_requests": None,
    }
    assert found(api, email="ann@example.com") == []
    assert found(api, email="bob@example.com") == [made.json()["id"]]


def test_a_reservation_without_a_guest_gets_one_later(api: httpx.Client, db: Db) -> None:
    made = api.post("/reservations", json={"sku": an_item(db).sku, "quantity": 1}).json()["id"]
    unknown = api.get(f"/reservations/{made}/guest")

    assert (unknown.status_code, unknown.json()["type"]) == (404, "/problems/unknown-guest")
    assert api.put(f"/reservations/{made}/guest", json=ANN).status_code == 200
    assert api.get(f"/reservations/{made}/guest").json() == ANN


def test_a_reservation_that_is_not_there_has_no_guest(api: httpx.Client, db: Db) -> None:
    for answer in (
        api.get(f"/reservations/{uuid4()}/guest"),
        api.put(f"/reservations/{uuid4()}/guest", json=ANN),
    ):
        assert (answer.status_code, answer.json()["type"]) == (404, "/problems/unknown-reservation")


@pytest.mark.parametrize(
    "wanted",
    [
        {"email": "ann@EXAMPLE.com"},
        {"email": " Ann@Example.com "},
        {"telephone": "+49301234567"},
        {"telephone": "+49 30 1234 567"},
        {"telephone": "+٤٩ ٣٠ ١٢٣٤٥٦٧"},
    ],
)
def test_a_guest_is_found_however_their_address_or_number_is_written(
    api: httpx.Client, db: Db, wanted: dict[str, str]
) -> None:
    made = reserve(api, db)
    reserve(api, db, {"name": "Bob", "email": "bob@example.com", "telephone": "49301234567"})

    assert found(api, **wanted) == [made.json()["id"]]


def test_a_search_has_pages(api: httpx.Client, db: Db) -> None:
    made = [reserve(api, db).json()["id"] for _ in range(3)]

    first = api.post("/guests/search", json={"email": ANN["email"], "limit": 2}).json()
    second = api.post("/guests/search", json={"email": ANN["email"], "limit": 2, "cursor": first["next_cursor"]}).json()

    assert first["reservation_ids"] + second["reservation_ids"] == made[::-1]
    assert second["next_cursor"] is None
    assert (first["complete"], second["complete"]) == (True, True)


@pytest.mark.parametrize("key", ["missing", "another one"])
def test_a_search_does_not_say_that_nobody_is_there_while_a_key_of_guests_is_not_there(
    api: httpx.Client, served: Served, db: Db, key: str
) -> None:
    made = reserve(api, db)
    lost = Keyring.read(f"{'lost' if key == 'missing' else 'test'}:{base64.b64encode(bytes([1]) * 32).decode()}")
    a_guest(db, lost, Person(name="Bob", email="bob@example.com"))

    nobody = api.post("/guests/search", json={"email": "bob@example.com"})
    somebody = api.post("/guests/search", json={"email": ANN["email"]}).json()

    assert (nobody.status_code, nobody.json()["type"]) == (503, "/problems/search-incomplete")
    assert nobody.json()["key_id"] == lost.key_id and "PII_KEYS" in nobody.json()["detail"]
    assert somebody == {"reservation_ids": [made.json()["id"]], "next_cursor": None, "complete": False}
    assert served.logged().count('"event": "guests.not_all_found"') == 2


@pytest.mark.parametrize("wanted", [{}, {"email": "a@b", "telephone": "+1 234"}, {"email": "x"}, {"name": "Ann"}])
def test_a_search_is_by_either_an_address_or_a_number(api: httpx.Client, db: Db, wanted: dict[str, str]) -> None:
    assert api.post("/guests/search", json=wanted).status_code == 400


def test_nothing_of_a_row_can_be_moved_to_another_one(api: httpx.Client, served: Served, db: Db) -> None:
    """Who may write to the database can't have one guest shown as another: what is encrypted is bound to its row."""
    ann, bob = reserve(api, db), reserve(api, db, {"name": "Bob", "email": "bob@example.com"})
    moved = text("""
        UPDATE guests SET key_id = other.key_id, wrapped_key = other.wrapped_key, name = other.name FROM guests other
        WHERE guests.reservation_id = :ann AND other.reservation_id = :bob
    """)
    swapped = text("UPDATE guests SET name = email, email = name WHERE reservation_id = :bob")
    with db.begin() as session:
        session.execute(moved, {"ann": ann.json()["id"], "bob": bob.json()["id"]})
        session.execute(swapped, {"bob": bob.json()["id"]})

    for answer in (guest_of(api, ann), guest_of(api, bob)):
        assert (answer.status_code, answer.json()["type"]) == (503, "/problems/guest-unreadable")
        assert "PII_KEYS" in answer.json()["detail"]
    assert served.logged().count('"event": "guest.unreadable"') == 2


@pytest.mark.slow
def test_without_keys_no_personal_data_is_taken_and_the_rest_works(settings: Settings, db: Db) -> None:
    with serving(PII_KEYS="") as served:
        api = served.client
        answers = (
            reserve(api, db, ANN, **KEYED),
            api.put(f"/reservations/{uuid4()}/guest", json=ANN),
            api.post("/guests/search", json={"email": "ann@example.com"}),
        )
        for answer in answers:
            assert (answer.status_code, answer.json()["type"]) == (409, "/problems/no-keys-for-personal-data")
        assert api.get("/reservations").json()["reservations"] == []
        assert reserve(api, db, {"id": "guest-42"}, **KEYED).status_code == 201
        assert served.faults() == []


@pytest.mark.slow
def test_a_guest_whose_key_is_gone_is_answered_clearly_and_the_log_names_the_key(
    api: httpx.Client, settings: Settings, db: Db
) -> None:
    made = reserve(api, db)
    with serving(PII_KEYS=f"other:{'A' * 42}E=") as served:
        answer = served.client.get(f"/reservations/{made.json()['id']}/guest")

        assert (answer.status_code, answer.json()["type"]) == (503, "/problems/guest-unreadable")
        assert '"key_id": "test"' in served.logged()
    assert guest_of(api, made).json() == ANN
