"""With REQUIRE_IDEMPOTENCY_KEYS, a request that changes something needs a key."""

from collections.abc import Iterator

import httpx
import pytest

from domain.runtime.settings import Settings
from tests.support.api_process import serving
from tests.support.builders import Db, a_hold, an_item
from tests.support.refusals import everything

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def strict(settings: Settings) -> Iterator[httpx.Client]:
    with serving(REQUIRE_IDEMPOTENCY_KEYS="true") as served:
        yield served.client


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/items", {"sku": "A", "name": "A"}),
        ("PATCH", "/items/ROOM-101", {"name": "A"}),
        ("PATCH", "/items/by-id/1", {"name": "A"}),
        ("POST", "/reservations", {"sku": "ROOM-101", "quantity": 1}),
        *(
            ("POST", f"/reservations/{{hold}}/{to}", {})
            for to in ("confirm", "reject", "cancel", "check-in", "complete", "no-show")
        ),
        ("POST", "/reservations/{hold}/extend", {"ttl_seconds": 60}),
        ("PATCH", "/reservations/{hold}", {"note": "A"}),
        ("POST", "/outbox/destinations/events/pause", {"why": "a test"}),
        ("POST", "/outbox/replay", {"selection": {"all": True}, "why": "a test"}),
    ],
)
def test_a_request_that_changes_something_is_refused_without_a_key(
    strict: httpx.Client, db: Db, method: str, path: str, body: object
) -> None:
    hold = a_hold(db, an_item(db, sku="ROOM-101"))
    before = everything(db)

    refused = strict.request(method, path.format(hold=hold.id), json=body)

    assert (refused.status_code, refused.json()["field"]) == (400, "Idempotency-Key")
    assert refused.json()["type"] == "/problems/invalid-request"
    assert "required" in refused.json()["detail"]
    assert everything(db) == before


def test_the_openapi_document_says_that_the_key_is_required(strict: httpx.Client, api: httpx.Client) -> None:
    def required(client: httpx.Client) -> set[bool]:
        paths = client.get("/schema/openapi.json").json()["paths"]
        parameters = [one for path in paths.values() for by in path.values() for one in by.get("parameters", ())]
        return {one["required"] for one in parameters if one["name"] == "Idempotency-Key"}

    assert (required(strict), required(api)) == ({True}, {False})


def test_a_request_with_a_key_and_a_request_that_reads_are_answered(strict: httpx.Client, db: Db) -> None:
    item = an_item(db)

    made = strict.post("/reservations", json={"item_id": item.id, "quantity": 1}, headers={"Idempotency-Key": "k"})

    assert made.status_code == 201
    for path in (made.headers["Location"], "/items", "/reservations", f"/items/{item.sku}", "/health/live", "/schema"):
        assert strict.get(path).status_code == strict.head(path).status_code == 200
    assert strict.options("/reservations").status_code == 204
