"""Bodies that must be refused: each refusal names the field, and nothing has changed."""

import json
from collections.abc import Iterator, Mapping

import httpx
import pytest

from api.http.limits import MAX_BODY_BYTES
from api.reservations.metadata import MAX_METADATA_BYTES, MAX_METADATA_DEPTH
from tests.support.builders import Db, an_item
from tests.support.refusals import HOLD, ITEM, JSON, SKU, Environment, unchanged_environment

#: More digits than Python converts to a number.
NINES = "9" * 5_000


@pytest.fixture
def environment(api: httpx.Client, db: Db) -> Iterator[Environment]:
    with unchanged_environment(api, db) as environment:
        yield environment


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b'{"item_id":1,"quantity":1,}',
        b'{"item_id":1,"quantity":1}{}',
        b"{'item_id':1,'quantity':1}",
        b'{"item_id":1,"quantity":NaN}',
        b'{"item_id":1,"quantity":1,"metadata":{"a":NaN}}',
        b'{"item_id":1,"quantity":1,"metadata":{"a":-Infinity}}',
        b'{"item_id":1,"quantity":01}',
        b'{"item_id":1,"quantity":1,"note":"\xe9"}',  # Latin-1
        b'{"item_id":1,"quantity":1,"metadata":{"\xff":1}}',
        b'{"item_id":1,"quantity":1,"note":"a\nb"}',
        b'{"item_id":1,"quantity":1,"note":"a\x00b"}',
        b'{"item_id":1,"quantity":1,"note":"\\ud800"}',  # half of a pair
        b'{"item_id":1,"quantity":1,"note":"\\udc00x"}',
        b'{"item_id":1,"quantity":1,"note":"\xed\xa0\x80"}',
        b'{"item_id":1,"quantity":1,"metadata":{"\\ud800":1}}',
        '{"item_id":1,"quantity":1}'.encode("utf-16"),
        b"\xef\xbb\xbf" + b'{"item_id":1,"quantity":1}',  # a byte order mark
        b"null",
        b"[]",
        b"1",
        b'"item"',
    ],
)
def test_what_is_not_an_object_of_json_in_utf_8_is_refused(environment: Environment, body: bytes) -> None:
    problem = environment.refuses_body(body)

    assert (problem["status"], problem["field"]) == (400, "body")


@pytest.mark.parametrize("body", [b"{", b"[]", b"null", b'{"\xe9', b'{"\\ud800'])
@pytest.mark.parametrize(
    "path", ["/items", f"/items/by-id/{ITEM}", f"/reservations/{HOLD}/confirm", f"/reservations/{HOLD}/cancel"]
)
def test_every_handler_refuses_a_body_that_is_not_an_object(environment: Environment, path: str, body: bytes) -> None:
    problem = environment.refuses_body(body, path)

    assert (problem["status"], problem["field"]) == (400, "body")


@pytest.mark.parametrize("path", ["/items", f"/items/by-id/{ITEM}"])
def test_a_body_that_is_required_can_not_be_omitted(environment: Environment, path: str) -> None:
    problem = environment.refuses_body(b"", path)

    assert (problem["status"], problem["field"]) == (400, "body")


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded", "text/json", ""])
@pytest.mark.parametrize("path", ["/items", "/reservations", f"/reservations/{HOLD}/confirm"])
def test_another_content_type_than_json_is_refused(
    environment: Environment, path: str, content_type: str | None
) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}

    problem = environment.refuses("POST", path, content=b'{"item_id":1,"quantity":1}', headers=headers)

    assert (problem["status"], problem["field"]) == (415, "Content-Type")


@pytest.mark.parametrize("chunk", [None, 65_536])
@pytest.mark.parametrize("path", ["/items", "/reservations", f"/reservations/{HOLD}/cancel"])
def test_a_body_that_is_too_large_is_refused(environment: Environment, path: str, chunk: int | None) -> None:
    body = b'{"item_id":1,"quantity":1,"note":"' + b"x" * MAX_BODY_BYTES + b'"}'
    chunks = body if chunk is None else iter([body[at : at + chunk] for at in range(0, len(body), chunk)])

    problem = environment.refuses("POST", path, content=chunks, headers=JSON)

    assert (problem["status"], problem["field"]) == (413, "body")


def test_a_body_may_be_as_large_as_the_limit(environment: Environment) -> None:
    empty = '{"item_id":1,"quantity":0}'

    problem = environment.refuses_body(empty + " " * (MAX_BODY_BYTES - len(empty)))

    assert problem["field"] == "quantity"


def _each(named: str, *fields: Mapping[str, object]) -> list[tuple[Mapping[str, object], str]]:
    return [(one, named) for one in fields]


def _every(field: str, *values: object) -> list[tuple[Mapping[str, object], str]]:
    return _each(field, *({field: value} for value in values))


#: Fields with wrong values, beside an item and a quantity that are right.
WRONG_FIELDS = [
    *_every("quantity", 0, -1, 1.5, 1.0, "2", 10**12, 2**31, True, None, [], [1], {}),
    *_every("item_id", 0, -1, 2**63, 10**30, 1.5, "1", True, []),
    *_each("item_id", {"item_id": None}, {"sku": SKU}),  # neither of the two, and both
    *_each("sku", *({"item_id": None, "sku": value} for value in ("", "x" * 65, "A\0", 1, True))),
    *_every("ttl_seconds", 0, -1, 604_801, 10**30, 1.5, "900", True),
    *_every("guest", "guest-42", 42),
    *_each("guest.id", {"guest": {}}, *({"guest": {"id": value}} for value in ("", "x" * 65, "\0", 7, None))),
    *_each("guest.name", {"guest": {"id": "guest-42", "email": "ann@example.com"}}),
    *_each("guest.colour", {"guest": {"id": "guest-42", "colour": "red"}}),
    *_every("note", "x" * 2_001, "a\0b", 7),
    *_every("metadata", [], "cart", {"a\0": 1}, {"a": "x" * MAX_METADATA_BYTES}, {str(n): n for n in range(2_000)}),
    *_each("metadata.a.b", {"metadata": {"a": {"b": ["\0"]}}}),
    *((({name: 1}), name) for name in ("colour", "Quantity", "status", "", "`", "co`l\nour", "a\0")),
]


@pytest.mark.parametrize(("fields", "named"), WRONG_FIELDS)
def test_a_wrong_field_of_a_reservation_is_named(
    environment: Environment, fields: Mapping[str, object], named: str
) -> None:
    problem = environment.refuses_body(json.dumps({"item_id": 1, "quantity": 1, **fields}))

    assert (problem["status"], problem["field"]) == (400, named)
    assert problem["detail"].startswith(f"{named}: ")


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ("{}", "quantity"),
        ('{"item_id":1}', "quantity"),
        ('{"item_id":1,"quantity":1e2}', "quantity"),
        ('{"item_id":1,"quantity":1e400}', "quantity"),
        (f'{{"item_id":{NINES},"quantity":1}}', "item_id"),
        ('{"item_id":1,"quantity":1,"metadata":{"a":1e400}}', "metadata"),
        ('{"item_id":1,"quantity":1,"metadata":{"a":[-1e999999999]}}', "metadata"),
        (f'{{"item_id":1,"quantity":1,"metadata":{{"a":{NINES}}}}}', "metadata"),
    ],
)
def test_a_number_that_is_too_large_is_named(environment: Environment, body: str, named: str) -> None:
    problem = environment.refuses_body(body)

    assert (problem["status"], problem["field"]) == (400, named)


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("/items", {"name": "Room"}, "sku"),
        ("/items", {"sku": "A"}, "name"),
        ("/items", {"sku": "", "name": "Room"}, "sku"),
        ("/items", {"sku": "x" * 65, "name": "Room"}, "sku"),
        ("/items", {"sku": "A\0", "name": "Room"}, "sku"),
        ("/items", {"sku": 7, "name": "Room"}, "sku"),
        ("/items", {"sku": "A", "name": ""}, "name"),
        ("/items", {"sku": "A", "name": "x" * 256}, "name"),
        ("/items", {"sku": "A", "name": "\0"}, "name"),
        ("/items", {"sku": "A", "name": "Room", "available_quantity": -1}, "available_quantity"),
        ("/items", {"sku": "A", "name": "Room", "available_quantity": 2**31}, "available_quantity"),
        ("/items", {"sku": "A", "name": "Room", "available_quantity": 1.5}, "available_quantity"),
        ("/items", {"sku": "A", "name": "Room", "available_quantity": "1"}, "available_quantity"),
        ("/items", {"sku": "A", "name": "Room", "available_quantity": True}, "available_quantity"),
        ("/items", {"sku": "A", "name": "Room", "id": 7}, "id"),
        ("/items/ROOM-101", {"adjust_quantity_by": 2**31}, "adjust_quantity_by"),
        ("/items/ROOM-101", {"adjust_quantity_by": -(2**31)}, "adjust_quantity_by"),
        ("/items/ROOM-101", {"adjust_quantity_by": "1"}, "adjust_quantity_by"),
        ("/items/ROOM-101", {"adjust_quantity_by": None}, "adjust_quantity_by"),
        ("/items/ROOM-101", {"name": "a\0b"}, "name"),
        ("/items/ROOM-101", {"name": ""}, "name"),
        ("/items/ROOM-101", {"sku": "B"}, "sku"),
        ("/items/ROOM-101", {"available_quantity": 7}, "available_quantity"),
        ("/items/by-id/0", {"name": "Room"}, "item_id"),
        ("/items/by-id/ROOM-101", {"name": "Room"}, "item_id"),
        ("/items/by-id/9223372036854775808", {"name": "Room"}, "item_id"),
        ("/items/%00", {"name": "Room"}, "sku"),
        ("/items/ROOM-101", {"name": None}, "name"),
        ("/items/ROOM-101", {}, "body"),
        (f"/reservations/{HOLD}/confirm", {"expected_version": 0}, "expected_version"),
        (f"/reservations/{HOLD}/confirm", {"expected_version": "1"}, "expected_version"),
        (f"/reservations/{HOLD}/confirm", {"expected_version": 10**12}, "expected_version"),
        (f"/reservations/{HOLD}/confirm", {"reason": "Why not"}, "reason"),
        (f"/reservations/{HOLD}/cancel", {"expected_version": 1.5}, "expected_version"),
        (f"/reservations/{HOLD}/cancel", {"reason": ""}, "reason"),
        (f"/reservations/{HOLD}/cancel", {"reason": "x" * 501}, "reason"),
        (f"/reservations/{HOLD}/cancel", {"reason": "a\0b"}, "reason"),
        (f"/reservations/{HOLD}/cancel", {"reason": 7}, "reason"),
        (f"/reservations/{HOLD}/extend", {}, "ttl_seconds"),
        (f"/reservations/{HOLD}/extend", {"ttl_seconds": 0}, "ttl_seconds"),
        (f"/reservations/{HOLD}/extend", {"ttl_seconds": 604_801}, "ttl_seconds"),
        (f"/reservations/{HOLD}/extend", {"ttl_seconds": "60"}, "ttl_seconds"),
        (f"/reservations/{HOLD}/extend", {"ttl_seconds": None}, "ttl_seconds"),
        (f"/reservations/{HOLD}/extend", {"ttl_seconds": 60, "expected_version": 0}, "expected_version"),
        (f"/reservations/{HOLD}/extend", {"ttl_seconds": 60, "expires_at": "2030-01-01"}, "expires_at"),
        (f"/reservations/{HOLD}", {}, "body"),
        (f"/reservations/{HOLD}", {"note": 7}, "note"),
        (f"/reservations/{HOLD}", {"note": "a\0b"}, "note"),
        (f"/reservations/{HOLD}", {"note": "x" * 2_001}, "note"),
        (f"/reservations/{HOLD}", {"status": "CONFIRMED"}, "status"),
        (f"/reservations/{HOLD}", {"quantity": 3}, "quantity"),
        ("/reservations/room", {"note": "Late"}, "reservation_id"),
        ("/reservations/room/confirm", {}, "reservation_id"),
        ("/reservations/1/cancel", {}, "reservation_id"),
        (f"/reservations/{HOLD}0/cancel", {}, "reservation_id"),
        ("/reservations/%00/confirm", {}, "reservation_id"),
    ],
)
def test_a_wrong_field_is_named(environment: Environment, path: str, body: object, named: str) -> None:
    problem = environment.refuses_body(json.dumps(body), path)

    assert (problem["status"], problem["field"]) == (400, named)


@pytest.mark.parametrize("opening", ["[", '{"a":'])
@pytest.mark.parametrize("key", [None, "k"])
@pytest.mark.parametrize("depth", [MAX_METADATA_DEPTH, 100, 400, 500, 900, 950, 960, 970, 980, 1_000, 5_000, 10_000])
def test_metadata_is_not_nested_deeply(environment: Environment, depth: int, key: str | None, opening: str) -> None:
    closing = "]" if opening == "[" else "}"
    keyed = {} if key is None else {"Idempotency-Key": key}

    for innermost in ("1", '"\\u0000"'):
        metadata = f'{{"a":{opening * depth}{innermost}{closing * depth}}}'
        problem = environment.refuses_body(f'{{"item_id":1,"quantity":1,"metadata":{metadata}}}', **keyed)

        assert problem["status"] == 400
        assert problem["field"].split(".")[0] in ("metadata", "body")


def test_an_unknown_field_is_refused_however_deeply_it_is_nested(environment: Environment) -> None:
    nested = "[" * 30_000 + "]" * 30_000

    problem = environment.refuses_body(f'{{"item_id":1,"quantity":1,"colour":{nested}}}')

    assert problem["status"] == 400


@pytest.mark.parametrize(
    "metadata",
    [
        "{}",
        '{"":""}',
        '{"a":' + "[" * (MAX_METADATA_DEPTH - 1) + "]" * (MAX_METADATA_DEPTH - 1) + "}",
        '{"a":"%s"}' % ("x" * (MAX_METADATA_BYTES - 8)),
        '{"a":1e308,"b":-1e308,"c":5e-324,"d":123456789012345678901234567890,"e":-0.0,"f":1e-400}',
        '{"a":"\\ud83d\\ude00","b":"\\\\u0000","c":"\u2028","d":"<script>"}',
    ],
)
def test_metadata_that_is_unusual_but_valid_is_kept(api: httpx.Client, db: Db, metadata: str) -> None:
    item = an_item(db)

    made = api.post(
        "/reservations", content=f'{{"item_id":{item.id},"quantity":1,"metadata":{metadata}}}'.encode(), headers=JSON
    )

    assert made.status_code == 201
    kept = api.get(made.headers["Location"]).text
    assert f'"metadata":{metadata},' in made.text
    assert f'"metadata":{metadata},' in kept
    assert json.loads(kept)


def test_of_a_field_that_is_given_twice_the_last_counts(api: httpx.Client, db: Db) -> None:
    item = an_item(db, quantity=5)

    made = api.post("/reservations", content=f'{{"item_id":{item.id},"quantity":5,"quantity":1}}', headers=JSON)

    assert (made.status_code, made.json()["quantity"]) == (201, 1)
