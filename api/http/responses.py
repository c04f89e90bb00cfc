"""Responses: the answers of the domain as HTTP sends them, and as the OpenAPI document describes refusals."""

from typing import Any, cast

import msgspec
from litestar import Response
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Example

from api.http.problems import EARLY_WORDINGS, MEDIA_TYPE, Problem, body_of, early_body_of
from domain.idempotency import Answered
from domain.runtime.errors import Busy, Invalid, Refusal, SoldOut, StalePrecondition, UnknownItem


class _Head(msgspec.Struct):
    """The fields of an answer that its headers repeat."""

    id: str | int | None = None
    version: int | None = None


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
    """Return the headers of the response with an answer, beside its type and length."""
    head = msgspec.json.decode(answer.text, type=_Head)
    headers = {"ETag": f'"{head.version}"'} if head.version else {}
    if status == 201:
        headers["Location"] = f"{at}/{head.id}"
    if answer.replayed:
        headers["Idempotency-Replayed"] = "true"
    return headers


_PROBLEMS = {
    400: ("The request is invalid; the problem names the field", body_of(Invalid("quantity", "expected int >= 1"))),
    404: ("What the request names does not exist", body_of(UnknownItem("ROOM-DOUBLE"))),
    409: ("The request contradicts the present state", body_of(SoldOut("ROOM-DOUBLE", asked=3, available_quantity=1))),
    412: ("If-Match does not name the current ETag", body_of(StalePrecondition('"1"', '"2"', 2))),
    413: ("The body has more than 1,000,000 bytes", early_body_of(EARLY_WORDINGS[413])),
    415: ("The body is not JSON", early_body_of(EARLY_WORDINGS[415])),
    503: ("Busy, or the database is unavailable; send the request again after Retry-After seconds", body_of(Busy())),
}


def problems(*statuses: int) -> dict[int, ResponseSpec]:
    """Return the description of these statuses for the OpenAPI document. Any operation may answer 400 and 503."""
    return {status: _problem(*_PROBLEMS[status]) for status in (400, *statuses, 503)}


def _problem(description: str, example: dict[str, Any]) -> ResponseSpec:
    return ResponseSpec(
        Problem,
        description=description,
        media_type=MEDIA_TYPE,
        generate_examples=False,
        examples=[Example(value=example)],
    )
