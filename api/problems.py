"""Every no that a client can hear: problem+json, RFC 9457. One table, and a test that it is complete."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException
from sqlalchemy.exc import SQLAlchemyError

from domain import errors
from domain.database import trouble
from domain.errors import HoldfastError, Unavailable

MEDIA_TYPE = "application/problem+json"

log = structlog.get_logger()


class Problem(msgspec.Struct, rename={"kind": "type"}):
    """What went wrong. Further members are facts, such as `available_quantity` or `field`."""

    kind: str
    title: str
    status: int
    detail: str


@dataclass(frozen=True, slots=True)
class Wording:
    """How one error is told. `detail` is filled from the error's fields."""

    status: int
    title: str
    detail: str

    def slug(self) -> str:
        return "urn:holdfast:problem:" + self.title.lower().replace(" ", "-")


WORDINGS: Mapping[type[HoldfastError], Wording] = {
    errors.Invalid: Wording(
        400, "Invalid request", "{field}: {reason}. Nothing was changed; correct it and send it again."
    ),
    errors.UnknownItem: Wording(404, "Unknown item", "There is no item {item}. GET /items lists those that there are."),
    errors.UnknownReservation: Wording(404, "Unknown reservation", "There is no reservation {reservation_id}."),
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

TITLES = {401: "Unauthorized", 404: "No such resource", 405: "Method not allowed", 413: "Body too large"}

HOW_TO_GO_ON = {
    404: "There is nothing at this address. /schema shows every operation.",
    405: "This address does not know that method. /schema shows every operation.",
    413: "The body has more than 1,000,000 bytes. Nothing was changed; send less.",
}


def of_error(_: Request[Any, Any, Any], error: HoldfastError) -> Response[dict[str, Any]]:
    """Render an error of the domain."""
    return of(error)


def of(error: HoldfastError) -> Response[dict[str, Any]]:
    wording = WORDINGS[type(error)]
    facts = {name: _plain(value) for name, value in vars(error).items()}
    headers = {}
    if isinstance(error, Unavailable):
        facts = {"retry_after": error.retry_after_seconds}
        headers = {"Retry-After": str(error.retry_after_seconds)}
    detail = wording.detail.format(**vars(error)) if vars(error) else wording.detail
    return _response(wording.status, wording.slug(), wording.title, detail, facts, headers)


def of_database_error(request: Request[Any, Any, Any], error: SQLAlchemyError) -> Response[dict[str, Any]]:
    """Render a database that is down or busy as such, and anything else as our fault."""
    passing = trouble(error)
    return of(passing) if passing else of_bug(request, error)


def of_http_error(_: Request[Any, Any, Any], error: HTTPException) -> Response[dict[str, Any]]:
    """Render what the framework refused before a door was reached."""
    status = error.status_code
    title = TITLES.get(status, "Invalid request")
    detail = HOW_TO_GO_ON.get(status, f"{error.detail} Nothing was changed.")
    slug = "urn:holdfast:problem:" + title.lower().replace(" ", "-")
    return _response(status, slug, title, detail, {}, dict(error.headers or {}))


def of_bug(_: Request[Any, Any, Any], error: Exception) -> Response[dict[str, Any]]:
    """Render what should never happen, without showing its insides."""
    log.error("request.failed", exc_info=error)
    detail = "This is our fault and has been logged. Send the same request again, with the same Idempotency-Key."
    return _response(500, "urn:holdfast:problem:internal-error", "Internal error", detail, {}, {})


def _response(
    status: int, slug: str, title: str, detail: str, facts: Mapping[str, Any], headers: Mapping[str, str]
) -> Response[dict[str, Any]]:
    body = {"type": slug, "title": title, "status": status, "detail": detail, **facts}
    return Response(body, status_code=status, media_type=MEDIA_TYPE, headers=dict(headers))


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return value if isinstance(value, int | str | None) else str(value)
