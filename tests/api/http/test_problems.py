"""Every error of the domain has a wording and a status, and its problem contains its facts."""

import json
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from typing import get_type_hints
from uuid import UUID

import httpx
import msgspec
import pytest

from api.http.problems import ALL, FACTS, MEDIA_TYPE, OF_ERRORS, body_of
from api.http.problems.members import COMMON, FURTHER, OPTIONAL
from domain.runtime import errors
from domain.runtime.errors import (
    Alternative,
    Busy,
    DatabaseUnavailable,
    HoldExpired,
    HoldfastError,
    InTheWay,
    NotFound,
    OutcomeUnknown,
    RateLimited,
    StalePrecondition,
    Unavailable,
)
from tests.support.api_process import Served
from tests.support.broken_tables import failing, missing
from tests.support.builders import Db, an_item

NOON = datetime(2030, 1, 31, 12, tzinfo=UTC)

#: A fact of each kind that an error may have.
SAMPLES = {
    int: 7,
    str: "ROOM-101",
    int | str: "ROOM-101",
    UUID: UUID(int=7),
    datetime: datetime(2030, 1, 31, tzinfo=UTC),
    int | None: 7,
    str | None: "ROOM-101",
    Mapping[str, Sequence[str]]: {"2030-01-31": ["09:00-17:00"]},
    Sequence[InTheWay] | None: [InTheWay(NOON, NOON, 7, None)],
    Sequence[Alternative] | None: [Alternative("ROOM-102", NOON, NOON, 7)],
}


def leaves(root: type[HoldfastError] = HoldfastError) -> Iterator[type[HoldfastError]]:
    """Yield every error of domain/runtime/errors.py from which no other error there is derived."""
    derived = [one for one in root.__subclasses__() if one.__module__ == errors.__name__]
    if not derived:
        yield root
    for one in derived:
        yield from leaves(one)


def an_error(kind: type[HoldfastError]) -> HoldfastError:
    types = get_type_hints(kind)
    return kind(**{name.name: SAMPLES[types[name.name]] for name in fields(kind)})  # type: ignore[arg-type]


every_error = pytest.mark.parametrize("kind", list(leaves()), ids=lambda kind: kind.__name__)


def test_every_error_is_in_the_table_and_nothing_else_is() -> None:
    assert set(OF_ERRORS) == set(leaves())


@every_error
def test_every_placeholder_in_a_wording_is_a_field_of_the_error(kind: type[HoldfastError]) -> None:
    placeholders = {name for _, name, _, _ in string.Formatter().parse(OF_ERRORS[kind].detail) if name is not None}

    assert placeholders <= {field.name for field in fields(kind)}  # type: ignore[arg-type]


@every_error
def test_a_problem_has_the_facts_of_its_error_beside_the_members_of_every_problem(kind: type[HoldfastError]) -> None:
    error, expected = an_error(kind), OF_ERRORS[kind]

    rendered = json.loads(msgspec.json.encode(body_of(error)))

    assert (rendered["type"], rendered["title"], rendered["status"]) == (expected.uri, expected.title, expected.status)
    assert not set(rendered["detail"]) & set("{}")
    assert rendered.keys() == {*COMMON, *FACTS[expected]}
    assert len(FACTS[expected]) == len(fields(kind)) + isinstance(error, NotFound)  # type: ignore[arg-type]


def test_every_member_is_described_and_nothing_else_is() -> None:
    assert {name for names in FACTS.values() for name in names} == set(FURTHER)
    assert set(FURTHER) >= OPTIONAL


def test_a_time_is_written_alike_in_the_text_and_in_the_member() -> None:
    body = body_of(HoldExpired(UUID(int=7), datetime(2030, 1, 31, 12, 15, 0, 304232, tzinfo=UTC)))

    assert body["expired_at"] == "2030-01-31T12:15:00.304232Z"
    assert f"expired at {body['expired_at']}," in body["detail"]


def test_a_fact_that_is_not_known_is_left_out() -> None:
    assert "current_version" not in body_of(StalePrecondition('"1"', '"2"'))


@every_error
def test_503_is_for_errors_that_pass_and_429_for_those_that_pass_for_one_sender(kind: type[HoldfastError]) -> None:
    passing = {429} if issubclass(kind, RateLimited) else {503}

    assert (OF_ERRORS[kind].status in passing) == issubclass(kind, Unavailable)


def test_no_two_problems_have_the_same_type() -> None:
    assert len({one.uri for one in ALL}) == len(ALL) == len(FACTS)


@pytest.mark.parametrize("kind", [Busy, DatabaseUnavailable, OutcomeUnknown])
def test_clients_that_are_refused_together_are_told_to_come_back_at_different_times(kind: type[Unavailable]) -> None:
    waits = [body_of(kind())["retry_after"] for _ in range(200)]

    shortest = kind().retry_after_seconds
    assert set(waits) == set(range(shortest, 3 * shortest + 1))


@pytest.mark.parametrize("table", ["idempotency_requests", "reservation_history"])
def test_a_fault_of_ours_is_answered_and_logged_without_the_data_of_the_request(
    api: httpx.Client, db: Db, served: Served, table: str
) -> None:
    wanted = {"item_id": an_item(db).id, "quantity": 1, "guest": {"id": "Ann Archer"}}

    with failing(db, table):
        answer = api.post("/reservations", json=wanted, headers={"Idempotency-Key": "for Ann Archer"})

    assert (answer.status_code, answer.headers["Content-Type"]) == (500, MEDIA_TYPE)
    assert answer.json()["type"] == "/problems/internal-error"
    assert table not in answer.text
    logged = served.logged()
    assert "request.failed" in logged and table in logged
    assert "Ann Archer" not in logged


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_database_that_is_not_migrated_is_answered_with_what_to_do_and_logged_in_a_line(
    api: httpx.Client, db: Db, served: Served, method: str
) -> None:
    wanted = {"item_id": an_item(db).id, "quantity": 1} if method == "POST" else None

    with missing(db, "reservations", "line_count"):
        answer = api.request(method, "/reservations", json=wanted)

    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/database-unavailable")
    assert "is not migrated" in answer.json()["detail"] and "bin/migrate" in answer.json()["detail"]
    assert int(answer.headers["Retry-After"]) == answer.json()["retry_after"]
    logged = served.logged()
    assert "request.not_migrated" in logged and "bin/migrate" in logged
    assert "Traceback" not in logged and "request.failed" not in logged
