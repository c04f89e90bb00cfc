"""Every no that a client can hear: problem+json, RFC 9457. One table, and a test that it is complete."""

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
    """What went wrong. `field` names what is at fault in the request; further members are facts."""

    kind: str
    title: str
    status: int
    detail: str
    field: str | UnsetType = UNSET


@dataclass(frozen=True, slots=True)
class Wording:
    """How one error is told. `detail` is filled from the error's fields."""

    status: int
    title: str
    detail: str
    #: What is at fault, where the error itself does not say.
    field: str | None = None

    def slug(self) -> str:
        return "urn:holdfast:problem:" + self.title.lower().replace(" ", "-")


WORDINGS: Mapping[type[HoldfastError], Wording] = {
    errors.Invalid: Wording(
        400, "Invalid request", "{field}: {reason}. Nothing was changed; correct it and send it again."
    ),
    errors.UnknownItem: Wording(404, "Unknown item", "There is no item {item}. GET /items lists those that there are."),
    errors.UnknownReservation: Wording(404, "Unknown reservation", "There is no reservation {reservation_id}."),
    errors.UnknownDestination: Wording(
        404,
        "Unknown destination",
        "There is no destination {destination}; those that there are: {there_are}. Nothing was changed.",
    ),
    errors.NothingPromised: Wording(
        404,
        "Nothing promised",
        "The outbox has no event and no reservation {subject_id}. Delivered rows leave it after their retention, and"
        " what no destination wants is never recorded.",
    ),
    errors.SoldOut: Wording(
        409,
        "Sold out",
        "{asked} of {sku} were asked for and {available_quantity} can be had now. Nothing was reserved; ask for less,"
        " or try again later with the same key, as holds that are not confirmed come back.",
    ),
    errors.SkuTaken: Wording(
        409, "Sku taken", "There is an item {sku} already. Choose another sku, or PATCH that item."
    ),
    errors.StockCommitted: Wording(
        409,
        "Stock committed",
        "The stock of {sku} can't change by {adjust_quantity_by}: {available_quantity} are available, and the rest is"
        " promised to reservations. Nothing was changed.",
    ),
    errors.WrongStatus: Wording(
        409,
        "Wrong status",
        "A reservation that is {status} can't become {to}. It is as it was; GET it to see how it stands.",
    ),
    errors.HoldLapsed: Wording(
        409,
        "Hold lapsed",
        "The hold ended at {expired_at} and its stock has been given back. Make a new reservation.",
    ),
    errors.StaleVersion: Wording(
        409,
        "Stale version",
        "Version {expected_version} was expected and the reservation has version {current_version}. Nothing was"
        " changed; GET it and decide again.",
    ),
    errors.StalePrecondition: Wording(
        412,
        "Stale precondition",
        "If-Match names version {expected_version} and the reservation has version {current_version}. Nothing was"
        " changed; GET it and decide again.",
    ),
    errors.KeyReused: Wording(
        409,
        "Key reused",
        "The idempotency key {key!r} was used for another request within the last 24 hours. Nothing was changed; repeat"
        " that request as it was, or use a new key.",
    ),
    errors.Busy: Wording(
        503, "Busy", "Too much is waiting. Nothing was changed; send the same request again in {retry_after_seconds} s."
    ),
    errors.DatabaseUnavailable: Wording(
        503,
        "Database unavailable",
        "The database can't be reached. Send the same request again in {retry_after_seconds} s, with the same"
        " Idempotency-Key, so that it can't take effect twice.",
    ),
}

#: What the framework refuses before a door is reached, by status.
EARLY_WORDINGS: Mapping[int, Wording] = {
    wording.status: wording
    for wording in (
        Wording(404, "No such resource", "There is nothing at this address. /schema shows every operation."),
        Wording(405, "Method not allowed", "This address does not know that method. /schema shows every operation."),
        Wording(
            413, "Body too large", "The body has more than 1,000,000 bytes. Nothing was changed; send less.", "body"
        ),
        Wording(
            415,
            "Unsupported content type",
            "The body must be JSON. Nothing was changed; send it with Content-Type: application/json.",
            "Content-Type",
        ),
    )
}


def of_error(_: Request[Any, Any, Any], error: HoldfastError) -> Response[dict[str, Any]]:
    """Render an error of the domain."""
    return of(error)


def of(error: HoldfastError) -> Response[dict[str, Any]]:
    headers = {"Retry-After": str(error.retry_after_seconds)} if isinstance(error, Unavailable) else {}
    return _response(body_of(error), headers)


def body_of(error: HoldfastError) -> dict[str, Any]:
    """Return the problem that an error is."""
    facts = {_MEMBERS.get(name, name): _plain(value) for name, value in vars(error).items()}
    if isinstance(error, NotFound):
        facts["field"] = error.field
    if isinstance(error, Unavailable):
        facts = {"retry_after": error.retry_after_seconds}
    return _body(WORDINGS[type(error)], facts, vars(error))


#: What a fact is called where its own name is taken: `status` is the response's.
_MEMBERS = {"status": "current_status"}


def of_database_error(request: Request[Any, Any, Any], error: SQLAlchemyError) -> Response[dict[str, Any]]:
    """Render a database that is down or busy as such, and anything else as our fault."""
    passing = trouble(error)
    return of(passing) if passing else of_bug(request, error)


def of_http_error(request: Request[Any, Any, Any], error: HTTPException) -> Response[dict[str, Any]]:
    """Render what the framework refused before a door was reached."""
    if isinstance(error, ValidationException):
        return of(_invalid(error))
    if error.status_code >= 500:
        return of_bug(request, error)
    wording = EARLY_WORDINGS.get(error.status_code) or Wording(
        error.status_code, "Invalid request", f"{error.detail}. Nothing was changed."
    )
    return _response(early_body_of(wording), error.headers or {})


def early_body_of(wording: Wording) -> dict[str, Any]:
    """Return the problem that the framework's refusal is."""
    return _body(wording, {"field": wording.field} if wording.field else {}, {})


def _invalid(error: ValidationException) -> Invalid:
    """Turn the framework's list of faults into the first of them."""
    faults: Any = error.extra or [{}]
    field, reason = faults[0].get("key", "request"), faults[0].get("message", error.detail)
    return Invalid("body", "it is empty, and JSON is needed") if field == "data" else Invalid(field, sentence(reason))


def of_bug(_: Request[Any, Any, Any], error: Exception) -> Response[dict[str, Any]]:
    """Render what should never happen, without showing its insides."""
    log.error("request.failed", exc_info=error)
    return _response(_body(BUG, {}, {}), {})


BUG = Wording(
    500,
    "Internal error",
    "This is our fault and has been logged. Send the same request again, with the same Idempotency-Key.",
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
