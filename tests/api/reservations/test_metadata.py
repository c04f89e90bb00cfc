"""Metadata over HTTP: the client's text, from the request to every answer, within limits."""

import json
from collections.abc import Iterator

import httpx
import pytest

from api.reservations.metadata import MAX_METADATA_BYTES, MAX_METADATA_VALUES
from domain.items import Item
from tests.support.builders import Db, a_hold, a_request, an_item, reserve
from tests.support.refusals import JSON, Environment, unchanged_environment

#: Nothing of this survives decoding and encoding: digits, white space, escapes, and a name that is given twice.
WRITTEN = '{ "cart": 1E2,\n\t"much": [1e308, -0.0, 0.10, 1e-400], "caf\\u00e9": "\\/", "a": 1, "a": {} }'


@pytest.fixture
def environment(api: httpx.Client, db: Db) -> Iterator[Environment]:
    with unchanged_environment(api, db) as environment:
        yield environment


def made(api: httpx.Client, item: Item, metadata: str, **headers: str) -> httpx.Response:
    body = f'{{"item_id":{item.id},"quantity":1,"metadata":{metadata}}}'
    return api.post("/reservations", content=body.encode(), headers=JSON | headers)


def test_every_answer_has_the_metadata_as_it_was_sent(api: httpx.Client, db: Db) -> None:
    hold = made(api, an_item(db), WRITTEN)
    location = hold.headers["Location"]

    answers = [hold, api.get(location), api.get("/reservations"), api.post(f"{location}/confirm"), api.get(location)]

    for answer in answers:
        assert answer.is_success and f'"metadata":{WRITTEN}' in answer.text


@pytest.mark.parametrize("metadata", ["null", " null ", "{}", "{ }"])
def test_metadata_may_be_empty(api: httpx.Client, db: Db, metadata: str) -> None:
    hold = made(api, an_item(db), metadata)

    assert hold.status_code == 201
    assert f'"metadata":{metadata.strip()},' in hold.text
    assert f'"metadata":{metadata.strip()},' in api.get(hold.headers["Location"]).text


def test_without_metadata_it_is_null(api: httpx.Client, db: Db) -> None:
    hold = a_hold(db, an_item(db))

    assert api.get(f"/reservations/{hold.id}").json()["metadata"] is None


def test_the_bytes_of_metadata_are_counted_as_they_were_sent(api: httpx.Client, db: Db) -> None:
    item = an_item(db)
    longest = '{"é":"' + "x" * (MAX_METADATA_BYTES - 9) + '"}'
    assert len(longest.encode()) == MAX_METADATA_BYTES

    assert made(api, item, longest).status_code == 201
    assert made(api, item, longest.replace(":", ": ")).status_code == 400


@pytest.mark.parametrize("metadata", ["{" + " " * MAX_METADATA_BYTES + "}", '{"a":[' + "[]," * 6_000 + "[]]}"])
def test_metadata_with_too_many_bytes_is_refused(environment: Environment, metadata: str) -> None:
    problem = environment.refuses_body(f'{{"item_id":1,"quantity":1,"metadata":{metadata}}}')

    assert (problem["status"], problem["field"]) == (400, "metadata")
    assert problem["detail"].startswith(f"metadata: it has more than {MAX_METADATA_BYTES} bytes. ")


def test_a_page_ends_when_it_is_long_and_the_next_one_continues(api: httpx.Client, db: Db) -> None:
    item = an_item(db, quantity=80)
    text = '{"a":"' + "x" * 16_000 + '"}'
    reserve(db, *(a_request(item, metadata=text) for _ in range(80)))

    first = api.get("/reservations", params={"limit": 1_000}).json()
    second = api.get("/reservations", params={"limit": 1_000, "cursor": first["next_cursor"]}).json()

    assert (len(first["reservations"]), len(second["reservations"])) == (63, 17)
    assert second["next_cursor"] is None
    assert len({one["id"] for page in (first, second) for one in page["reservations"]}) == 80


@pytest.mark.parametrize(
    "value",
    ["1e-20000", "1e-401", "-1.5E+309", "0e99999999999999999999", f"0.{'9' * 1_100}e-300", "9" * 10_000],
)
def test_a_number_that_postgresql_may_not_store_is_refused(environment: Environment, value: str) -> None:
    problem = environment.refuses_body(f'{{"item_id":1,"quantity":1,"metadata":{{"a":[{value}]}}}}')

    assert (problem["status"], problem["field"]) == (400, "metadata")


def test_numbers_of_every_size_that_a_double_has_are_stored(api: httpx.Client, db: Db) -> None:
    text = '{"a":[1e308,-1.5E-308,0.1,5e-324,1e+5,"1e99999",18446744073709551615]}'

    answer = made(api, an_item(db), text)

    assert (answer.status_code, json.dumps(answer.json()["metadata"])) == (201, json.dumps(json.loads(text)))


def test_metadata_with_too_many_values_is_refused(environment: Environment) -> None:
    most = '{"a":[' + ",".join(["0"] * (MAX_METADATA_VALUES - 2)) + "%s]}"

    problem = environment.refuses_body('{"item_id":1,"quantity":1,"metadata":' + most % ",0" + "}")

    assert problem["detail"].startswith(f"metadata: it has more than {MAX_METADATA_VALUES} values. ")
    other = environment.refuses_body('{"item_id":0,"quantity":1,"metadata":' + most % "" + "}")
    assert other["field"] == "item_id"
