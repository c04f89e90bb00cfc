"""Problems: every refusal and every failure as problem+json, RFC 9457. A test proves that the table is complete."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from msgspec import UNSET, UnsetType
from sqlalchemy.exc import SQLAlchemyError

from api.http.decoding import sentence
from domain.runtime import errors
from domain.runtime.database import trouble
from domain.runtime.errors import HoldfastError, Invalid, NotFound, Unavailable

MEDIA_TYPE = "application/problem+json"

log = structlog.get_logger()


class Problem(msgspec.Struct, rename={"kind": "type"}):
    """What went wrong. `field` names the part of the request that is at fault; further members are facts."""

    kind: str
    title: str
    status: int
    detail: str
    field: str | UnsetType = UNSET


@dataclass(frozen=True, slots=True)
class Wording:
    """The status and the words for one error. `detail` has placeholders for the fields of the error."""

    status: int
    title: str
    detail: str
    #: The part of the request that is at fault, where the error itself does not name it.
    field: str | None = None

    def slug(self) -> str:
        return "urn:holdfast:problem:" + self.title.lower().replace(" ", "-")


WORDINGS: Mapping[type[HoldfastError], Wording] = {
    errors.Invalid: Wording(
        400, "Invalid request", "{field}: {reason}. Nothing was changed; correct it and send it again."
    ),
    errors.UnknownItem: Wording(404, "Unknown item", "No item has the id or sku {item}. GET /items lists all items."),
    errors.UnknownReservation: Wording(404, "Unknown reservation", "No reservation has the id {reservation_id}."),
    errors.UnknownDestination: Wording(
        404,
        "Unknown destination",
        "No destination has the name {destination}. Known destinations: {known}. Nothing was changed.",
    ),
    errors.NotInOutbox: Wording(
        404,
        "Not in outbox",
        "The outbox has no row of an event or a reservation with the id {subject_id}. Delivered rows are deleted after"
        " their retention time, and an event that no destination wants is not recorded.",
    ),
    errors.SoldOut: Wording(
        409,
        "Sold out",
        "Requested {asked} of {sku}; {available_quantity} available. Nothing was reserved. Request less, or try again"
        " later with the same key: the units of holds that expire become available again.",
    ),
    errors.SkuTaken: Wording(
        409, "Sku taken", "An item with the sku {sku} exists already. Choose another sku, or PATCH that item."
    ),
    errors.InsufficientAvailableStock: Wording(
        409,
        "Insufficient available stock",
        "The stock of {sku} cannot change by {adjust_quantity_by}: {available_quantity} available, and the other units"
        " belong to reservations. Nothing was changed.",
    ),
    errors.WrongStatus: Wording(
        409,
        "Wrong status",
        "The reservation cannot change from {status} to {to}. Nothing was changed. GET it to see its current status.",
    ),
    errors.HoldExpired: Wording(
        409,
        "Hold expired",
        "The hold expired at {expired_at}, and its units are available again. Make a new reservation.",
    ),
    errors.StaleVersion: Wording(
        409,
        "Stale version",
        "Version {expected_version} was expected, and the reservation has version {current_version}. Nothing was"
        " changed; GET it and decide again.",
    ),
    errors.StalePrecondition: Wording(
        412,
        "Stale precondition",
        "If-Match names {if_match}, and the current ETag is {current_etag}. Nothing was changed; GET it and decide"
        " again.",
    ),
    errors.IdempotencyKeyReused: Wording(
        409,
        "Idempotency key reused",
        "The idempotency key {key!r} was used for another request within the last 24 hours. Nothing was changed; send"
        " the first request again as it was, or use a new key.",
    ),
    errors.Busy: Wording(
        503,
        "Busy",
        "Holdfast is busy. Nothing was changed; send the same request again in {retry_after_seconds} s.",
    ),
    errors.DatabaseUnavailable: Wording(
        503,
        "Database unavailable",
        "The database cannot be reached, or does not answer in time. Nothing was changed; send the same request again"
        " in {retry_after_seconds} s.",
    ),
    errors.OutcomeUnknown: Wording(
        503,
        "Outcome unknown",
        "The database did not say whether the request took effect. Send the same request again in"
        " {retry_after_seconds} s with the same Idempotency-Key, so that it cannot take effect twice. If it had none,"
        " look first whether it did.",
    ),
}

#: What the framework refuses before a handler is called, by status.
EARLY_WORDINGS: Mapping[int, Wording] = {
    wording.status: wording
    for wording in (
        Wording(404, "No such resource", "No resource has this path. /schema shows every operation."),
        Wording(
            408,
            "Body too slow",
            "The body did not arrive within 5 s. Nothing was changed; send the request again.",
            "body",
        ),
        Wording(405, "Method not allowed", "The resource does not support this method. /schema shows every operation."),
        Wording(
            413,
            "Body too large",
            "The body has more than 1,000,000 bytes, or came in more than 2,000 pieces. Nothing was changed; send"
            " less.",
            "body",
        ),
        Wording(414, "Query too long", "The query string has more than 4,096 bytes. Send fewer parameters."),
        Wording(
            415,
            "Unsupported content type",
            "The body must be JSON. Nothing was changed; send it with Content-Type: application/json.",
            "Content-Type",
        ),
    )
}


def of_error(_: Request[Any, Any, Any], error: HoldfastError) -> Response[dict[str, Any]]:
    """Render an error of the domain, for the framework."""
    return of(error)


def of(error: HoldfastError) -> Response[dict[str, Any]]:
    """Render an error of the domain, with `Retry-After` if the client may send the request again."""
    headers = {"Retry-After": str(error.retry_after_seconds)} if isinstance(error, Unavailable) else {}
    return _response(body_of(error), headers)


def body_of(error: HoldfastError) -> dict[str, Any]:
    """Return the body of the problem that describes an error of the domain."""
    facts = {_MEMBERS.get(name, name): _plain(value) for name, value in vars(error).items() if value is not None}
    if isinstance(error, NotFound):
        facts["field"] = error.field
    if isinstance(error, Unavailable):
        facts = {"retry_after": error.retry_after_seconds}
    return _body(WORDINGS[type(error)], facts, vars(error))


#: The name of a fact whose own name is taken: `status` is that of the response.
_MEMBERS = {"status": "current_status"}


def of_database_error(request: Request[Any, Any, Any], error: SQLAlchemyError) -> Response[dict[str, Any]]:
    """Render that the database is unavailable or busy, and any other error of it as our own fault."""
    passing = trouble(error)
    return of(passing) if passing else of_bug(request, error)


def of_http_error(request: Request[Any, Any, Any], error: HTTPException) -> Response[dict[str, Any]]:
    """Render what the framework refused before a handler was called."""
    if isinstance(error, ValidationException):
        return of(_invalid(error))
    if error.status_code >= 500:
        return of_bug(request, error)
    wording = EARLY_WORDINGS.get(error.status_code) or Wording(
        error.status_code, "Invalid request", f"{error.detail}. Nothing was changed."
    )
    return _response(early_body_of(wording), error.headers or {})


def early_body_of(wording: Wording) -> dict[str, Any]:
    """Return the body of the problem that describes a refusal of the framework."""
    return _body(wording, {"field": wording.field} if wording.field else {}, {})


def _invalid(error: ValidationException) -> Invalid:
    """Return the first fault that the framework found."""
    faults: Any = error.extra or [{}]
    field, reason = faults[0].get("key", "request"), faults[0].get("message", error.detail)
    return Invalid("body", "it is empty, and JSON is required") if field == "data" else Invalid(field, sentence(reason))


def of_any(request: Request[Any, Any, Any], error: Exception) -> Response[dict[str, Any]]:
    """Render any error that a handler may raise."""
    match error:
        case HoldfastError():
            return of(error)
        case SQLAlchemyError():
            return of_database_error(request, error)
        case HTTPException():
            return of_http_error(request, error)
        case _:
            return of_bug(request, error)


def of_bug(_: Request[Any, Any, Any], error: Exception) -> Response[dict[str, Any]]:
    """Render an error that should never happen, without showing its details to the client."""
    log.error("request.failed", exc_info=error)
    return _response(_body(BUG, {}, {}), {})


BUG = Wording(
    500,
    "Internal error",
    "This is a fault of Holdfast and has been logged. Send the same request again, with the same Idempotency-Key.",
)


def _body(wording: Wording, facts: Mapping[str, object], filled: Mapping[str, object]) -> dict[str, Any]:
    detail = wording.detail.format(**filled) if filled else wording.detail
    return {"type": wording.slug(), "title": wording.title, "status": wording.status, "detail": detail, **facts}


def _response(body: dict[str, Any], headers: Mapping[str, str]) -> Response[dict[str, Any]]:
    return Response(body, status_code=body["status"], media_type=MEDIA_TYPE, headers=dict(headers))


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return value if isinstance(value, int | str | None) else str(value)
