"""Query parameters and headers that no operation has, or that are given twice, are refused by their names."""

from collections.abc import Iterator

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
        ("/reservations?guestid=guest-42", "guestid"),
        ("/reservations?guestid=", "guestid"),
        ("/reservations?guest_id=a&Status=PENDING", "Status"),
        ("/reservations?since=2030-01-31T12:00:00Z", "since"),
        ("/reservations?limit", "limit"),
        ("/reservations?x", "x"),
        ("/reservations?=x", ""),
        ("/reservations?%67uestid=1", "guestid"),
        ("/reservations?ä=1", "ä"),
        ("/items?limit=1&sku=A", "sku"),
        ("/items/ROOM-101?expand=1", "expand"),
        (f"/items/by-id/{ITEM}?sku=A", "sku"),
        (f"/reservations/{HOLD}?limit=1", "limit"),
        ("/outbox/destinations?name=log", "name"),
        ("/outbox/dead-letters?destinations=log", "destinations"),
        ("/health/live?x=1", "x"),
        ("/health/ready?x=1", "x"),
        ("/metrics?x=1", "x"),
    ],
)
def test_an_unknown_query_parameter_is_named(environment: Environment, path: str, named: str) -> None:
    problem = environment.refuses("GET", path)

    assert (problem["status"], problem["field"]) == (400, named)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/reservations"),
        ("POST", "/items"),
        ("PATCH", "/items/ROOM-101"),
        ("PATCH", f"/reservations/{HOLD}"),
        ("POST", f"/reservations/{HOLD}/cancel"),
    ],
)
def test_an_operation_that_changes_something_has_no_query_parameters(
    environment: Environment, method: str, path: str
) -> None:
    problem = environment.refuses(method, f"{path}?dry_run=true", json={})

    assert (problem["status"], problem["field"]) == (400, "dry_run")


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("/reservations?status=PENDING&status=CONFIRMED", "status"),
        ("/reservations?guest_id=a&limit=1&guest_id=a", "guest_id"),
        ("/reservations?guest_id=&guest_id=", "guest_id"),
        ("/items?limit=1&limit=2", "limit"),
    ],
)
def test_a_repeated_query_parameter_is_named(environment: Environment, path: str, named: str) -> None:
    problem = environment.refuses("GET", path)

    assert (problem["status"], problem["field"]) == (400, named)
    assert "more than once" in problem["detail"]


def test_a_query_of_very_many_parameters_is_refused(environment: Environment) -> None:
    problem = environment.refuses("GET", "/items?" + "a&" * 1_000)

    assert (problem["status"], problem["field"]) == (400, "query")


@pytest.mark.parametrize(
    ("path", "status"), [("/items?limit=" + "1" * 5_000, 414), ("/items/" + "x" * 1_100, 414), ("/" + "x/" * 600, 414)]
)
def test_an_address_that_is_too_long_is_refused(environment: Environment, path: str, status: int) -> None:
    assert environment.refuses("GET", path)["type"] == "/problems/uri-too-long"


@pytest.mark.parametrize("header", ["Idempotency-Key", "X-Client-Id"])
@pytest.mark.parametrize("values", [("k", "k"), ("k", "other"), ("k", "")])
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/items", {"sku": "A", "name": "Room"}),
        ("PATCH", f"/items/by-id/{ITEM}", {"adjust_quantity_by": 1}),
        ("POST", "/reservations", {"item_id": 1, "quantity": 1}),
        ("POST", f"/reservations/{HOLD}/confirm", {}),
    ],
)
def test_a_header_that_is_given_twice_is_named(
    environment: Environment, method: str, path: str, body: object, header: str, values: tuple[str, str]
) -> None:
    headers = [(header, value) for value in values]
    if header != "Idempotency-Key":
        headers.append(("Idempotency-Key", "k"))

    problem = environment.refuses(method, path, json=body, headers=headers)

    assert (problem["status"], problem["field"]) == (400, header)
