"""The OpenAPI document: it shows an example of everything, and the API does what it says."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest

from api.app import OPERATIONS
from api.http.problems import ALL, FACTS, MEDIA_TYPE
from api.http.problems.members import COMMON, OPTIONAL
from tests.support.builders import Db, a_hold, an_item

METHODS = {"get", "put", "post", "patch", "delete"}

#: Schemathesis generates requests from the document, and checks the answers against it.
SCHEMATHESIS = Path(sys.executable).parent / "schemathesis"

#: The document says `integer`; JSON Schema accepts 2.0 as an integer, and we do not.
EXCLUDED_CHECKS = "positive_data_acceptance"

#: Without this, it generates names of clients, most of them invalid, and nearly every request is refused for that.
SETTINGS = """
[parameters]
"header.X-Client-Id" = "schemathesis"
"""


@pytest.fixture
def document(api: httpx.Client) -> Any:
    return api.get("/schema/openapi.json").raise_for_status().json()


def operations(document: Any) -> Iterator[tuple[str, Any]]:
    for path, item in document["paths"].items():
        for method in METHODS & item.keys():
            yield f"{method.upper()} {path}", item[method]


def test_every_handler_is_an_operation_of_the_document(document: Any) -> None:
    assert {name for name, _ in operations(document)} == {
        "POST /items",
        "GET /items",
        "GET /items/{sku}",
        "PATCH /items/{sku}",
        "GET /items/by-id/{item_id}",
        "PATCH /items/by-id/{item_id}",
        "POST /reservations",
        "GET /reservations",
        "GET /reservations/{reservation_id}",
        "PATCH /reservations/{reservation_id}",
        "PUT /reservations/{reservation_id}",
        "POST /items/by-id/{item_id}/blocks",
        "GET /items/by-id/{item_id}/availability",
        "POST /availability",
        "POST /reservations/{reservation_id}/confirm",
        "POST /reservations/{reservation_id}/cancel",
        "POST /reservations/{reservation_id}/reject",
        "POST /reservations/{reservation_id}/check-in",
        "POST /reservations/{reservation_id}/complete",
        "POST /reservations/{reservation_id}/no-show",
        "POST /reservations/{reservation_id}/extend",
        "GET /reservations/{reservation_id}/guest",
        "PUT /reservations/{reservation_id}/guest",
        "POST /guests/search",
        "GET /events",
        "GET /outbox/destinations",
        "POST /outbox/destinations/{name}/pause",
        "POST /outbox/destinations/{name}/resume",
        "POST /outbox/destinations/{name}/probe",
        "GET /outbox/dead-letters",
        "GET /outbox/dead-letters/groups",
        "POST /outbox/dead-letters/replay",
        "POST /outbox/dead-letters/discard",
        "POST /outbox/replay",
        "GET /outbox/why/{subject_id}",
        "GET /audit",
        "POST /api/v1/bookings",
        "GET /api/v1/bookings/{booking_id}",
        "PUT /api/v1/bookings/{booking_id}",
        "GET /api/v1/bookings/reference/{reference}",
        "GET /api/v1/bookings/{booking_id}/history",
        "POST /api/v1/bookings/{booking_id}/cancel",
        "POST /api/v1/bookings/{booking_id}/status",
        "GET /api/v1/bookings/guest/{guest_id}",
        "GET /api/v1/bookings/venue/{venue_id}",
        "POST /api/v1/bookings/availability/check",
        "POST /providers/{provider_id}/slots",
        "GET /providers/{provider_id}/slots",
        "GET /providers/{provider_id}/slots/{slot_id}",
        "POST /bookings",
        "GET /bookings/{booking_id}",
        "GET /bookings/{booking_id}/history",
        "POST /bookings/{booking_id}/cancel",
        "POST /providers/{provider_id}/bookings/{booking_id}/accept",
        "POST /providers/{provider_id}/bookings/{booking_id}/reject",
        "GET /health/live",
        "GET /health/ready",
    }
    assert {operation["operationId"] for _, operation in operations(document)} == set(OPERATIONS)


def test_every_operation_says_what_it_does(document: Any) -> None:
    for name, operation in operations(document):
        assert operation["summary"] and operation["description"], name


def test_every_body_and_every_answer_has_an_example_that_fits_its_schema(document: Any) -> None:
    for name, operation in operations(document):
        shown = list(operation["responses"].values())
        assert all(response["content"] for response in shown), name
        shown += [operation["requestBody"]] if "requestBody" in operation else []
        for media in (media for one in shown for media in one["content"].values()):
            schema = jsonschema_rs.validator_for(media["schema"] | {"components": document["components"]})
            for example in media.get("examples", {}).values():
                schema.validate(example["value"])
            assert media.get("examples"), name


def problems(operation: Any) -> dict[int, set[str]]:
    """Return the types of the problems of an operation by status, from its examples."""
    found = {}
    for status, response in operation["responses"].items():
        media = response["content"].get(MEDIA_TYPE)
        if media is not None:
            types = {example["value"]["type"] for example in media["examples"].values()}
            found[int(status)] = {one.rpartition("/")[2] for one in types}
    return found


KEY_REUSED = "idempotency-key-reused"
ITEM_READ = {404: {"unknown-item"}}
TIME = {"not-free", "outside-opening-hours"}
ITEM_CHANGE = {
    404: {"unknown-item"},
    409: {"insufficient-available-stock", "capacity-in-use", KEY_REUSED},
    412: {"stale-precondition"},
}
STATUS_CHANGE = {
    404: {"unknown-reservation"},
    409: {"wrong-status", "hold-expired", "stale-version", KEY_REUSED},
    412: {"stale-precondition"},
}
DESTINATION_CHANGE = {404: {"unknown-destination"}, 409: {KEY_REUSED}}
BULK_CHANGE = {409: {KEY_REUSED}}

READS_WITH_A_BODY = {"POST /availability", "POST /guests/search", "POST /api/v1/bookings/availability/check"}
NO_KEYS = "no-keys-for-personal-data"
BOOKING_CHANGE = {
    404: {"unknown-reservation"},
    409: {"hold-expired", "stale-version", KEY_REUSED},
    412: {"stale-precondition"},
}

SLOT_CHANGE = {404: {"unknown-reservation"}, 409: {"wrong-status", "hold-expired", KEY_REUSED}}

#: What each operation may refuse with 404, 409 and 412.
REFUSALS: dict[str, dict[int, set[str]]] = {
    "POST /items": {409: {"sku-taken", KEY_REUSED}},
    "GET /items": {},
    "GET /items/{sku}": ITEM_READ,
    "GET /items/by-id/{item_id}": ITEM_READ,
    "PATCH /items/{sku}": ITEM_CHANGE,
    "PATCH /items/by-id/{item_id}": ITEM_CHANGE,
    "POST /reservations": {404: {"unknown-item"}, 409: {"sold-out", *TIME, KEY_REUSED, NO_KEYS}},
    "GET /items/by-id/{item_id}/availability": ITEM_READ,
    "POST /availability": ITEM_READ,
    "POST /items/by-id/{item_id}/blocks": {404: {"unknown-item"}, 409: {*TIME, KEY_REUSED}},
    "GET /reservations": {},
    "GET /reservations/{reservation_id}": {404: {"unknown-reservation"}},
    "GET /reservations/{reservation_id}/guest": {404: {"unknown-reservation", "unknown-guest"}, 409: {NO_KEYS}},
    "PUT /reservations/{reservation_id}/guest": {404: {"unknown-reservation"}, 409: {NO_KEYS, KEY_REUSED}},
    "POST /guests/search": {409: {NO_KEYS}},
    "GET /events": {404: {"no-feed"}},
    "POST /reservations/{reservation_id}/confirm": STATUS_CHANGE,
    "POST /reservations/{reservation_id}/reject": STATUS_CHANGE,
    "POST /reservations/{reservation_id}/cancel": STATUS_CHANGE,
    "POST /reservations/{reservation_id}/check-in": STATUS_CHANGE,
    "POST /reservations/{reservation_id}/complete": STATUS_CHANGE,
    "POST /reservations/{reservation_id}/no-show": STATUS_CHANGE,
    "POST /reservations/{reservation_id}/extend": STATUS_CHANGE | {409: {*STATUS_CHANGE[409], "hold-too-long"}},
    "PUT /reservations/{reservation_id}": STATUS_CHANGE | {409: {*STATUS_CHANGE[409], "sold-out", *TIME}},
    "PATCH /reservations/{reservation_id}": STATUS_CHANGE | {409: STATUS_CHANGE[409] - {"stale-version"}},
    "GET /outbox/destinations": {},
    "POST /outbox/destinations/{name}/pause": DESTINATION_CHANGE,
    "POST /outbox/destinations/{name}/resume": DESTINATION_CHANGE,
    "POST /outbox/destinations/{name}/probe": DESTINATION_CHANGE,
    "GET /outbox/dead-letters": {},
    "GET /outbox/dead-letters/groups": {},
    "POST /outbox/dead-letters/replay": BULK_CHANGE,
    "POST /outbox/dead-letters/discard": BULK_CHANGE,
    "POST /outbox/replay": BULK_CHANGE,
    "GET /outbox/why/{subject_id}": {404: {"not-in-outbox"}},
    "GET /audit": {},
    "POST /api/v1/bookings": {404: {"unknown-venue"}, 409: {"calendar-changed", *TIME, KEY_REUSED, NO_KEYS}},
    "GET /api/v1/bookings/{booking_id}": {404: {"unknown-reservation"}, 409: {NO_KEYS}},
    "PUT /api/v1/bookings/{booking_id}": BOOKING_CHANGE | {409: {*BOOKING_CHANGE[409], "wrong-status", *TIME, NO_KEYS}},
    "GET /api/v1/bookings/reference/{reference}": {404: {"unknown-reference"}, 409: {NO_KEYS}},
    "GET /api/v1/bookings/{booking_id}/history": {404: {"unknown-reservation"}},
    "POST /api/v1/bookings/{booking_id}/cancel": BOOKING_CHANGE,
    "POST /api/v1/bookings/{booking_id}/status": BOOKING_CHANGE,
    "GET /api/v1/bookings/guest/{guest_id}": {},
    "GET /api/v1/bookings/venue/{venue_id}": {404: {"unknown-venue"}},
    "POST /api/v1/bookings/availability/check": {404: {"unknown-venue"}, 409: {"calendar-changed"}},
    "POST /providers/{provider_id}/slots": {409: {"sku-taken", "slots-overlap", KEY_REUSED}},
    "GET /providers/{provider_id}/slots": {},
    "GET /providers/{provider_id}/slots/{slot_id}": {404: {"unknown-slot"}},
    "POST /bookings": {404: {"unknown-slot"}, 409: {"slot-taken", "slot-has-begun", KEY_REUSED}},
    "GET /bookings/{booking_id}": {404: {"unknown-reservation"}},
    "GET /bookings/{booking_id}/history": {404: {"unknown-reservation"}},
    "POST /bookings/{booking_id}/cancel": SLOT_CHANGE,
    "POST /providers/{provider_id}/bookings/{booking_id}/accept": SLOT_CHANGE,
    "POST /providers/{provider_id}/bookings/{booking_id}/reject": SLOT_CHANGE,
    "GET /health/live": {},
    "GET /health/ready": {},
}


#: What is answered when a key of guests, or the service that keeps the keys, is not there.
WITHOUT_KEYS: dict[str, set[str]] = {
    "POST /reservations": {"personal-data-unavailable"},
    "GET /reservations/{reservation_id}/guest": {"guest-unreadable", "personal-data-unavailable"},
    "PUT /reservations/{reservation_id}/guest": {"personal-data-unavailable"},
    "POST /guests/search": {"search-incomplete", "personal-data-unavailable"},
    "POST /api/v1/bookings": {"personal-data-unavailable"},
    "PUT /api/v1/bookings/{booking_id}": {"personal-data-unavailable"},
    "GET /api/v1/bookings/{booking_id}": {"guest-unreadable", "personal-data-unavailable"},
    "GET /api/v1/bookings/reference/{reference}": {"guest-unreadable", "personal-data-unavailable"},
}

#: These refuse a change of status with 400, as the booking contract says.
WITH_TRANSITIONS = {"POST /api/v1/bookings/{booking_id}/cancel", "POST /api/v1/bookings/{booking_id}/status"}


def test_every_operation_shows_the_problems_that_it_has_and_no_others(document: Any) -> None:
    shown = {name: problems(operation) for name, operation in operations(document)}

    assert {name: {one: by[one] for one in (404, 409, 412) if one in by} for name, by in shown.items()} == REFUSALS
    for name, by_status in shown.items():
        illegal = {"illegal-transition"} if name in WITH_TRANSITIONS else set()
        assert by_status[400] == {"invalid-request"} | illegal and by_status[414] == {"uri-too-long"}
        if name.startswith("GET /health"):
            assert by_status.keys() == {400, 414, 429}
            continue
        has_body = not name.startswith("GET")
        changes = has_body and name not in READS_WITH_A_BODY
        assert (by_status[401], by_status[403]) == ({"not-authenticated"}, {"not-allowed"})
        further = ({"outcome-unknown"} if changes else set()) | WITHOUT_KEYS.get(name, set())
        assert by_status[503] == {"busy", "database-unavailable", "keys-unavailable"} | further
        assert {408, 413, 415} & by_status.keys() == ({408, 413, 415} if has_body else set()), name


def test_every_type_of_problem_is_listed_and_has_a_schema_with_its_members(document: Any) -> None:
    schemas = document["components"]["schemas"]
    by_type = {
        schema["properties"]["type"]["const"]: schema for name, schema in schemas.items() if name.endswith("Problem")
    }

    assert schemas["ProblemType"]["enum"] == [one.uri for one in ALL]
    assert by_type.keys() == {one.uri for one in ALL}
    for one in ALL:
        schema = by_type[one.uri]
        assert schema["properties"]["type"]["allOf"] == [{"$ref": "#/components/schemas/ProblemType"}]
        assert schema["properties"].keys() == {*COMMON, *FACTS[one]}
        assert set(schema["required"]) == schema["properties"].keys() - OPTIONAL
        assert schema["description"] and schema["properties"]["status"]["const"] == one.status


def test_every_answer_has_the_id_of_its_request(document: Any) -> None:
    for name, operation in operations(document):
        assert "X-Request-Id" in {parameter["name"] for parameter in operation["parameters"]}, name
        for response in operation["responses"].values():
            assert "X-Request-Id" in response["headers"], name


def test_an_example_of_a_hold_can_be_made_confirmed_and_cancelled(api: httpx.Client, document: Any) -> None:
    def shown(path: str) -> Any:
        (media,) = document["paths"][path]["post"]["requestBody"]["content"].values()
        (example,) = media["examples"].values()
        return example["value"]

    created = api.post("/items", json=shown("/items"))
    made = api.post("/reservations", json=shown("/reservations"))
    confirmed = api.post(f"{made.headers['Location']}/confirm", json=shown("/reservations/{reservation_id}/confirm"))
    cancelled = api.post(f"{made.headers['Location']}/cancel", json=shown("/reservations/{reservation_id}/cancel"))

    assert [one.status_code for one in (created, made, confirmed, cancelled)] == [201, 201, 200, 200]


def test_only_a_body_that_may_be_left_out_is_said_to_be_optional(document: Any) -> None:
    optional = {name for name, one in operations(document) if not one.get("requestBody", {}).get("required", True)}

    assert optional == {
        "POST /reservations/{reservation_id}/confirm",
        "POST /reservations/{reservation_id}/cancel",
        "POST /reservations/{reservation_id}/reject",
        "POST /reservations/{reservation_id}/check-in",
        "POST /reservations/{reservation_id}/complete",
        "POST /reservations/{reservation_id}/no-show",
        "POST /api/v1/bookings/{booking_id}/cancel",
        "POST /bookings/{booking_id}/cancel",
        "POST /providers/{provider_id}/bookings/{booking_id}/reject",
    }


def test_a_field_that_is_refused_does_not_fit_the_schema_either(document: Any) -> None:
    bodies = [one["requestBody"] for _, one in operations(document) if "requestBody" in one]
    schemas = [media["schema"] for body in bodies for media in body["content"].values()]

    for schema in (*schemas, {"$ref": "#/components/schemas/NewGuest"}):
        fits = jsonschema_rs.validator_for(schema | {"components": document["components"]})
        messages = [error.message for error in fits.iter_errors({"colour": "red"})]
        assert any("colour" in message for message in messages), messages


def test_every_change_can_be_sent_with_a_key(document: Any) -> None:
    keyed = {
        name
        for name, operation in operations(document)
        if "Idempotency-Key" in {parameter["name"] for parameter in operation.get("parameters", ())}
    }

    assert keyed == {name for name, _ in operations(document) if not name.startswith("GET")} - READS_WITH_A_BODY


@pytest.mark.slow
@pytest.mark.parametrize("seed", [20251120])
def test_requests_generated_from_the_document_are_answered_as_it_says(
    api: httpx.Client, db: Db, tmp_path: Path, seed: int
) -> None:
    a_hold(db, an_item(db, quantity=1_000))
    (tmp_path / "schemathesis.toml").write_text(SETTINGS)
    command = [str(SCHEMATHESIS), "run", f"{api.base_url}/schema/openapi.json", "--exclude-checks", EXCLUDED_CHECKS]
    command += ["--seed", str(seed), "--max-examples", "12", "--continue-on-failure", "--no-color", "--warnings", "off"]

    run = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True, timeout=240)

    assert run.returncode == 0, run.stdout[-20_000:] + run.stderr
    assert "Tested: 57" in run.stdout, run.stdout[-5_000:]
