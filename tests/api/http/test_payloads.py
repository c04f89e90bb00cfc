"""The hash of a request: it covers what was given, and says by which rule it was made."""

import httpx
import pytest
from sqlalchemy import String, select, update

from api.http.payloads import RULE, hash_of
from domain.idempotency import requests
from tests.support.builders import Db, a_hold, an_item

KEYED = {"Content-Type": "application/json", "Idempotency-Key": "k"}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b'{"a":1,"b":{"c":2,"d":[1,2]}}', b' { "b": {"d":[1, 2],"c":2}, "a":1 }\n'),
        (b'{"a":"\\u00e9"}', '{"a":"é"}'.encode()),
        (b'{"a":1,"a":2}', b'{"a":2}'),
        (b"", b"{}"),
    ],
)
def test_what_means_the_same_has_the_same_hash(one: bytes, other: bytes) -> None:
    assert hash_of(one) == hash_of(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b'{"a":1}', b'{"a":2}'),
        (b'{"a":1}', b'{"b":1}'),
        (b'{"a":[1,2]}', b'{"a":[2,1]}'),
        (b'{"a":1}', b'{"a":"1"}'),
        (b'{"a":null}', b"{}"),
    ],
)
def test_what_was_given_otherwise_has_another_hash(one: bytes, other: bytes) -> None:
    assert hash_of(one) != hash_of(other)


def test_the_parameters_of_the_path_are_part_of_a_request() -> None:
    assert len({hash_of(b"{}"), hash_of(b"{}", 1), hash_of(b"{}", "1"), hash_of(b"{}", 2)}) == 4


def test_a_hash_names_its_rule_and_fits_its_column() -> None:
    column = requests.c.payload_hash.type
    assert isinstance(column, String) and column.length

    assert hash_of(b'{"a":1}').startswith(f"{RULE}:")
    assert len(hash_of(b'{"a":1}')) <= column.length


def test_the_rule_is_the_one_that_is_stored_already() -> None:
    """If this fails, keys that were used before the release are taken for reused: give the rule another name."""
    given = b'{"quantity":2,"sku":"ROOM-101","metadata":{"b":[1,2.5,null],"a":"\\u00e9"}}'

    assert hash_of(given, "path") == "v1:9bec0e8f67c99b5f2d27a49a46c29235ed1d9612dbf36d5414f32605e9a7"


@pytest.mark.parametrize("stored", ["0" * 64, "v0:" + "0" * 60, "v2:" + "0" * 60])
def test_a_repeat_of_a_request_to_another_release_gets_its_answer(api: httpx.Client, db: Db, stored: str) -> None:
    body = f'{{"item_id":{an_item(db).id},"quantity":2}}'
    first = api.post("/reservations", content=body, headers=KEYED)
    hold = a_hold(db, an_item(db))
    confirmed = api.post(f"/reservations/{hold.id}/confirm", headers=KEYED)
    with db.begin() as session:
        session.execute(update(requests).values(payload_hash=stored))

    again = api.post("/reservations", content=body, headers=KEYED)
    confirmed_again = api.post(f"/reservations/{hold.id}/confirm", headers=KEYED)

    assert (first.status_code, again.status_code, again.content) == (201, 201, first.content)
    assert (confirmed_again.status_code, confirmed_again.content) == (200, confirmed.content)


def test_the_hash_that_is_stored_covers_only_what_was_given(api: httpx.Client, db: Db) -> None:
    item = an_item(db)
    body = f'{{"quantity":2,"item_id":{item.id}}}'.encode()

    api.post("/reservations", content=body, headers=KEYED).raise_for_status()

    with db.begin() as session:
        assert session.execute(select(requests.c.payload_hash)).scalar_one() == hash_of(body)


@pytest.mark.parametrize("number", ["1e308", "123456789012345678901234567890", str(2**64), "-0.0", "5e-324"])
def test_any_number_that_metadata_may_have_can_be_sent_with_a_key(api: httpx.Client, db: Db, number: str) -> None:
    body = f'{{"item_id":{an_item(db).id},"quantity":1,"metadata":{{"a":{number}}}}}'

    first, again = (api.post("/reservations", content=body, headers=KEYED) for _ in range(2))

    assert (first.status_code, again.content) == (201, first.content)
