"""Turning what the domain answered into a response."""

from typing import Any, cast

import msgspec
from litestar import Response
from litestar.openapi.datastructures import ResponseSpec

from api.problems import MEDIA_TYPE, Problem
from domain.errors import Refusal
from domain.idempotency import Answered


class _Head(msgspec.Struct):
    """The part of an answer that its headers repeat."""

    id: str | int
    version: int | None = None


def answered(outcome: Answered | Refusal, *, status: int, at: str) -> Response[Any]:
    """Send an answer as it was first rendered, with `Location` and `ETag`, or raise the refusal.

    `at` is the address that the id is appended to.
    """
    if isinstance(outcome, Refusal):
        raise outcome
    head = msgspec.json.decode(outcome.text, type=_Head)
    headers = {"ETag": f'"{head.version}"'} if head.version else {}
    if status == 201:
        headers["Location"] = f"{at}/{head.id}"
    if outcome.replayed:
        headers["Idempotency-Replayed"] = "true"
    # Bytes are sent as they are; the annotation of each door says what they hold.
    return Response(
        cast(Any, outcome.text.encode()), status_code=status, media_type="application/json", headers=headers
    )


_PROBLEM_TEXTS = {
    400: "The request can't be: the problem names the field",
    404: "There is no such thing",
    409: "It does not fit what is true now",
    412: "If-Match names another version than the current one",
    413: "The body has more than 1,000,000 bytes",
    415: "The body is not JSON",
    503: "Busy, or the database is down: ask again after Retry-After seconds",
}


def problems(*statuses: int) -> dict[int, ResponseSpec]:
    """Describe these statuses in the OpenAPI document. Any operation may answer 400 and 503."""
    return {
        status: ResponseSpec(
            Problem, description=_PROBLEM_TEXTS[status], media_type=MEDIA_TYPE, generate_examples=False
        )
        for status in (400, *statuses, 503)
    }
