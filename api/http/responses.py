"""Responses: the answers of the domain as HTTP sends them, and as the OpenAPI document describes refusals."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import msgspec
from litestar import Response
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Example

from api.http import problems
from api.http.fields import RESERVATION_ID, SKU
from api.http.preconditions import etag_of
from domain.idempotency import Answered
from domain.runtime import errors
from domain.runtime.errors import HoldfastError, Refusal


class _Head(msgspec.Struct):
    """The fields of an answer that its headers repeat."""

    id: str | int | None = None
    version: int | None = None
    updated_at: str | None = None


def answered(outcome: Answered | Refusal, *, status: int, at: str) -> Response[Any]:
    """Return the response with an answer as it was first rendered, with `Location` and `ETag`. Raises the refusal.

    `at` is the path to which `Location` appends the id.
    """
    if isinstance(outcome, Refusal):
        raise outcome
    # Bytes are sent as they are; the annotation of each handler says what they contain.
    return Response(
        cast(Any, outcome.text.encode()),
        status_code=status,
        media_type="application/json",
        headers=headers_of(outcome, status=status, at=at),
    )


def headers_of(answer: Answered, *, status: int, at: str) -> dict[str, str]:
    """Return the headers of the response with an answer, beside its type and length.

    The ETag is the version, or the time of the last change of what has no version.
    """
    head = msgspec.json.decode(answer.text, type=_Head)
    version = head.version or head.updated_at
    headers = {"ETag": etag_of(version)} if version else {}
    if status == 201:
        headers["Location"] = f"{at}/{head.id}"
    if answer.replayed:
        headers["Idempotency-Replayed"] = "true"
    return headers


#: A weekend in the examples.
FRIDAY, SUNDAY = datetime(2030, 5, 3, 13, 0, tzinfo=UTC), datetime(2030, 5, 5, 9, 0, tzinfo=UTC)

#: One error of each type, for the examples.
EXAMPLES: Mapping[type[HoldfastError], HoldfastError] = {
    type(error): error
    for error in (
        errors.Invalid("quantity", "expected int >= 1"),
        errors.NotAuthenticated("the token has expired"),
        errors.NotAllowed("reservations.confirm"),
        errors.KeysUnavailable(),
        errors.UnknownItem(SKU),
        errors.UnknownVenue("ristorante-vela"),
        errors.UnknownSlot("slot-123"),
        errors.UnknownReservation(RESERVATION_ID),
        errors.UnknownReference("BR-20300503-A3B9C2"),
        errors.UnknownDestination("partners", "log, partner"),
        errors.NotInOutbox(RESERVATION_ID),
        errors.NoFeed(),
        errors.PositionGone(17, 1_041),
        errors.UnknownGuest(RESERVATION_ID),
        errors.GuestForgotten(RESERVATION_ID, datetime(2030, 2, 1, 9, 0, tzinfo=UTC)),
        errors.SoldOut(SKU, asked=3, available_quantity=1),
        errors.SlotTaken("slot-123"),
        errors.SlotHasBegun("slot-123", FRIDAY),
        errors.SlotsOverlap("slot-122", FRIDAY, FRIDAY + timedelta(hours=1)),
        errors.NotFree(
            SKU,
            asked=2,
            available_quantity=1,
            start=FRIDAY,
            end=SUNDAY,
            conflicts=[errors.InTheWay(FRIDAY, FRIDAY + timedelta(days=1), 4, FRIDAY - timedelta(days=90))],
            alternatives=[errors.Alternative(SKU, FRIDAY + timedelta(days=1), SUNDAY + timedelta(days=1), 2)],
        ),
        errors.OutsideOpeningHours(SKU, "Europe/Berlin", {"2030-05-03": ["09:00-17:00"]}),
        errors.CapacityInUse(SKU, capacity=3, in_use=5),
        errors.SkuTaken(SKU),
        errors.ReferenceTaken("booking-4711"),
        errors.InsufficientAvailableStock(SKU, adjust_quantity_by=-5, available_quantity=3),
        errors.CalendarChanged(SKU),
        errors.WrongStatus("CANCELLED", "CONFIRMED"),
        errors.IllegalTransition("PENDING", "COMPLETED", "CONFIRMED, CANCELLED, REJECTED"),
        errors.HoldExpired(RESERVATION_ID, datetime(2030, 1, 31, 12, 15, tzinfo=UTC)),
        errors.HoldTooLong(RESERVATION_ID, datetime(2030, 2, 7, 12, 0, tzinfo=UTC)),
        errors.StaleVersion(1, 2),
        errors.StalePrecondition(etag_of(1), etag_of(2), 2),
        errors.IdempotencyKeyReused("order-7"),
        errors.NoKeys(),
        errors.GuestUnreadable("2030-01"),
        errors.SearchIncomplete("2030-01"),
        errors.PersonalDataUnavailable(),
        errors.Busy(),
        errors.TooManyRequests("principal", 1_000, 1, 1),
        errors.FailedTooOften("failed-authentication", 30, 60, 21),
        errors.DatabaseUnavailable(),
        errors.OutcomeUnknown(),
    )
}

#: The id of the request in all examples.
REQUEST_ID = "01943bb1-8a00-7e3c-9d54-3f1c0b6a7e22"

#: How every operation that is not open to anybody may refuse its sender.
OF_ACCESS = (errors.NotAuthenticated, errors.NotAllowed, errors.FailedTooOften, errors.KeysUnavailable)

#: What a request with a body may be answered before a handler is called, by status.
OF_BODIES = (408, 413, 415)


def probing() -> dict[int, ResponseSpec]:
    """Return the problems of every operation, for the OpenAPI document."""
    return _specs([_example(errors.Invalid), _example(errors.TooManyRequests), _early(414)])


def reading(*refusals: type[HoldfastError], has_body: bool = False) -> dict[int, ResponseSpec]:
    """Return the problems of an operation that reads, for the OpenAPI document: these, and those of every operation."""
    every: Sequence[type[HoldfastError]] = (
        errors.Invalid,
        *OF_ACCESS,
        *refusals,
        errors.TooManyRequests,
        errors.Busy,
        errors.DatabaseUnavailable,
    )
    return _specs([*map(_example, every), *map(_early, (*(OF_BODIES if has_body else ()), 414))])


def changing(*refusals: type[HoldfastError]) -> dict[int, ResponseSpec]:
    """Return the problems of an operation that changes something: these, and those of every such operation."""
    unavailable = (errors.TooManyRequests, errors.Busy, errors.DatabaseUnavailable, errors.OutcomeUnknown)
    every: Sequence[type[HoldfastError]] = (
        errors.Invalid,
        *OF_ACCESS,
        *refusals,
        errors.IdempotencyKeyReused,
        *unavailable,
    )
    return _specs([*map(_example, every), *map(_early, (*OF_BODIES, 414))])


def _example(error: type[HoldfastError]) -> dict[str, Any]:
    return {**problems.body_of(EXAMPLES[error], wait=1), "request_id": REQUEST_ID}


def _early(status: int) -> dict[str, Any]:
    return {**problems.body_of_early(problems.EARLY[status]), "request_id": REQUEST_ID}


def _specs(examples: Sequence[Mapping[str, Any]]) -> dict[int, ResponseSpec]:
    """Return the responses with these examples, by status. `openapi.complete` adds their schemas."""
    return {
        status: ResponseSpec(
            dict[str, Any],
            description="; ".join(one["title"] for one in examples if one["status"] == status),
            media_type=problems.MEDIA_TYPE,
            generate_examples=False,
            examples=[Example(value=one) for one in examples if one["status"] == status],
        )
        for status in sorted({one["status"] for one in examples})
    }
