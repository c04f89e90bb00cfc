"""Errors as statuses: each has a code, words, and details that ordinary clients decode."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from datetime import UTC, datetime
from typing import Any, get_type_hints
from uuid import UUID

import pytest
from google.rpc import code_pb2
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, PreconditionFailure, ResourceInfo, RetryInfo

from api.grpc import errors
from api.waits import LONGEST_WAIT
from domain.runtime.errors import (
    Alternative,
    Busy,
    Conflict,
    HoldfastError,
    InTheWay,
    Invalid,
    NotFound,
    NotFree,
    OutcomeUnknown,
    OutsideOpeningHours,
    RateLimited,
    Unavailable,
    UnknownReservation,
    WrongStatus,
)

ID = UUID("01943bb1-8a00-7e3c-9d54-3f1c0b6a7e21")
MOMENT = datetime(2030, 1, 31, 12, tzinfo=UTC)

#: A value for each type of a fact.
SAMPLES: Mapping[object, object] = {
    str: "some",
    int: 3,
    datetime: MOMENT,
    UUID: ID,
    Mapping[str, Sequence[str]]: {"2030-01-31": ["08:00-20:00"]},
}


def leaves(error: type[HoldfastError] = HoldfastError) -> list[type[HoldfastError]]:
    return [leaf for kind in error.__subclasses__() for leaf in leaves(kind)] or [error]


def a(kind: type[HoldfastError]) -> HoldfastError:
    """Return an error of this kind, with some facts."""
    hints = get_type_hints(kind)
    required = [one.name for one in fields(kind) if one.default is MISSING]  # type: ignore[arg-type]
    facts: dict[str, Any] = {name: SAMPLES.get(hints[name], "some") for name in required}
    return kind(**facts)


@pytest.mark.parametrize("kind", leaves(), ids=lambda kind: kind.__name__)
def test_every_error_of_the_domain_has_a_code_and_words(kind: type[HoldfastError]) -> None:
    message = errors.description_of(a(kind))

    assert message.code not in (code_pb2.OK, code_pb2.UNKNOWN, code_pb2.INTERNAL)
    assert message.message.endswith(".") and "{" not in message.message
    info = ErrorInfo()
    assert message.details[0].Unpack(info)
    assert (info.reason, info.domain) == (errors.reason_of(kind), "holdfast")


def test_no_other_error_is_in_the_table() -> None:
    assert set(errors.OF_ERRORS) == set(leaves())


@pytest.mark.parametrize(
    ("base", "code", "detail"),
    [
        (Invalid, code_pb2.INVALID_ARGUMENT, BadRequest),
        (NotFound, code_pb2.NOT_FOUND, ResourceInfo),
        (Conflict, code_pb2.FAILED_PRECONDITION, PreconditionFailure),
        (Unavailable, code_pb2.UNAVAILABLE, RetryInfo),
        (RateLimited, code_pb2.RESOURCE_EXHAUSTED, RetryInfo),
    ],
)
def test_errors_of_one_kind_have_one_code_and_one_type_of_details(
    base: type[HoldfastError], code: int, detail: type[object]
) -> None:
    for kind in leaves(base):
        # It is unavailable to one sender only, and has a code of its own for that.
        if issubclass(kind, RateLimited) and base is not RateLimited:
            continue
        message = errors.description_of(a(kind))
        assert (message.code, message.details[1].Is(detail.DESCRIPTOR)) == (code, True)  # type: ignore[attr-defined]


def test_the_details_name_what_is_at_fault() -> None:
    invalid, unknown, wrong = BadRequest(), ResourceInfo(), PreconditionFailure()

    errors.description_of(Invalid("id", "it is no UUID")).details[1].Unpack(invalid)
    errors.description_of(UnknownReservation(ID)).details[1].Unpack(unknown)
    errors.description_of(WrongStatus("CANCELLED", "CONFIRMED")).details[1].Unpack(wrong)

    assert [(one.field, one.description) for one in invalid.field_violations] == [("id", "it is no UUID")]
    assert (unknown.resource_type, unknown.resource_name) == ("reservation", str(ID))
    assert [one.type for one in wrong.violations] == ["WRONG_STATUS"]


@pytest.mark.parametrize("kind", [Busy, OutcomeUnknown])
def test_clients_that_are_refused_at_once_do_not_come_again_at_once(kind: type[Unavailable]) -> None:
    waits = set()
    for _ in range(100):
        retry = RetryInfo()
        errors.description_of(kind()).details[1].Unpack(retry)
        waits.add(retry.retry_delay.seconds)

    least = kind().retry_after_seconds
    assert waits == set(range(least, LONGEST_WAIT * least + 1))


def test_the_details_of_a_refusal_are_small_enough_for_the_headers_of_any_client() -> None:
    """gRPC sends them as headers in base64, of which a client in Java takes 8 kB."""
    sku = "x" * 64
    not_free = NotFree(sku, 1, 0, MOMENT, MOMENT)
    not_free.conflicts = [InTheWay(MOMENT, MOMENT, 10**9, MOMENT)] * 20
    not_free.alternatives = [Alternative(sku, MOMENT, MOMENT, 10**9)] * 3
    hours = {f"2030-01-{day:02}": ["00:00-01:00"] * 24 for day in range(1, 15)}

    for error in (not_free, OutsideOpeningHours(sku, "America/Argentina/ComodRivadavia", hours)):
        message = errors.description_of(error)
        assert len(b64encode(message.SerializeToString())) + len(message.message) < 7_000


def test_an_error_of_our_own_shows_none_of_its_details() -> None:
    status = errors.status_of(RuntimeError("a password"))

    assert status.code.name == "INTERNAL"
    assert "password" not in repr(status)
