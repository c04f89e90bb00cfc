"""Paths, queries and headers that must be refused: each refusal names them, and nothing has changed."""

from collections.abc import Iterator
from uuid import uuid4

import httpx
import pytest

from tests.support.builders import Db
from tests.support.refusals import HOLD, ITEM, Environment, unchanged_environment


@pytest.fixture
def environment(api: httpx.Client, db: Db) -> Iterator[Environment]:
    with unchanged_environment(api, db) as environment:
        yield environment


@pytest.mark.parametrize(
    ("path", "named"),
    [
        *((f"/items?limit={limit}", "limit") for limit in ("0", "-1", "1001", "many", "", "1.5", "9" * 4_000)),
        *((f"/items?cursor={cursor}", "cursor") for cursor in ("-1", "next", "9223372036854775808", "%00")),
        ("/items/%00", "sku"),
        ("/items/A%00B", "sku"),
        ("/items/A%FF", "path"),
        *((f"/items/by-id/{item}", "item_id") for item in ("0", "-1", "ROOM-101", "1.5", "9223372036854775808", "%00")),
        ("/reservations/room", "reservation_id"),
        ("/reservations/%00", "reservation_id"),
        ("/reservations/01943bb1-8a00-7e3c-9d54-3f1c0b6a7e2g", "reservation_id"),
        *((f"/reservations?limit={limit}", "limit") for limit in ("0", "1001", "many")),
        *((f"/reservations?cursor={cursor}", "cursor") for cursor in ("1", "next", "%00")),
        *((f"/reservations?status={status}", "status") for status in ("HELD", "pending", "", "%00")),
        *((f"/reservations?item_id={item}", "item_id") for item in ("0", "ROOM-101", "9223372036854775808", "%00")),
        *((f"/reservations?sku={sku}", "sku") for sku in ("%00", "A%00", "x" * 65)),
        *((f"/reservations?guest_id={guest}", "guest_id") for guest in ("%00", "x" * 65)),
        *((f"/reservations?source={source}", "source") for source in ("%00", "x" * 51)),
        *((f"/reservations?{bound}={timestamp}", bound) for bound in ("from", "to") for timestamp in (
            "2030-01-31T12:00:00", "2030-01-31", "2030-13-31T12:00:00Z", "2030-01-31T12:00:00+01:00", "yesterday",
            "2030", "0", "1e400", "NaN", "", "%00",
        )),
    ],
)  # fmt: skip
def test_a_wrong_parameter_is_named(environment: Environment, path: str, named: str) -> None:
    problem = environment.refuses("GET", path)

    assert (problem["status"], problem["field"]) == (400, named)


@pytest.mark.parametrize(
    ("header", "value"),
    [
        *(("Idempotency-Key", value) for value in (
            b"", b'""', b"x" * 256, b'"' + b"x" * 256 + b'"', "clé".encode(), b"cl\xe9", b"a\tb",
        )),
        *(("X-Client-Id", value) for value in (b"", b"x" * 256, "café".encode(), b"a\tb")),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/items", {"sku": "A", "name": "Room"}),
        ("PATCH", f"/items/by-id/{ITEM}", {"adjust_quantity_by": 1}),
        ("POST", "/reservations", {"item_id": 1, "quantity": 1}),
        ("POST", f"/reservations/{HOLD}/confirm", {}),
        ("POST", f"/reservations/{HOLD}/cancel", {}),
    ],
)
def test_a_wrong_header_is_named(
    environment: Environment, method: str, path: str, body: object, header: str, value: bytes
) -> None:
    headers = {b"Idempotency-Key": b"k", header.encode(): value}

    problem = environment.refuses(method, path, json=body, headers=headers)

    assert (problem["status"], problem["field"]) == (400, header)


@pytest.mark.parametrize(
    "value", [b"", b",", b"x", b"1", b"-1", b"\xff", b'"1', b'"1" "2"', b'"1" x', b'*, "1"', b'w/"1"', b'"a b"']
)
@pytest.mark.parametrize(
    ("method", "operation", "body"),
    [
        ("POST", "/confirm", {}),
        ("POST", "/cancel", {}),
        ("POST", "/extend", {"ttl_seconds": 60}),
        ("PATCH", "", {"note": "A"}),
    ],
)
def test_an_if_match_that_is_no_list_of_etags_is_refused(
    environment: Environment, method: str, operation: str, body: object, value: bytes
) -> None:
    path = f"/reservations/{HOLD}{operation}"

    problem = environment.refuses(method, path, json=body, headers={b"If-Match": value})

    assert (problem["status"], problem["field"]) == (400, "If-Match")


@pytest.mark.parametrize(
    ("wanted", "named"),
    [({"item_id": 7}, "item_id"), ({"item_id": 2**63 - 1}, "item_id"), ({"sku": "NONE"}, "sku"), ({"sku": "7"}, "sku")],
)
def test_an_unknown_item_is_named(environment: Environment, wanted: dict[str, object], named: str) -> None:
    problem = environment.refuses(
        "POST", "/reservations", json=wanted | {"quantity": 1}, headers={"Idempotency-Key": "k"}
    )

    assert (problem["status"], problem["field"], problem["item"]) == (404, named, wanted[named])


def test_an_unknown_reservation_is_named(environment: Environment) -> None:
    problem = environment.refuses("POST", f"/reservations/{uuid4()}/confirm", headers={"Idempotency-Key": "k"})

    assert (problem["status"], problem["field"]) == (404, "reservation_id")
