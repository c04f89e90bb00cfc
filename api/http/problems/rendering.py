"""Errors as problems: their bodies, and the responses with them."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from sqlalchemy.exc import SQLAlchemyError

from api.http import methods, request_ids
from api.http.decoding import sentence
from api.http.problems.table import BUG, EARLY, MEMBER_OF, NOT_MIGRATED, OF_ERRORS
from api.http.problems.types import ProblemType
from api.waits import wait_seconds
from domain.runtime.database_errors import trouble
from domain.runtime.errors import DatabaseUnavailable, HoldfastError, Invalid, NotAuthenticated, NotFound, Unavailable
from domain.runtime.schema import lacks_schema

MEDIA_TYPE = "application/problem+json"

log = structlog.get_logger()


def of_any(_: Request[Any, Any, Any], error: Exception) -> Response[dict[str, Any]]:
    """Render any error that a handler may raise."""
    match error:
        case HoldfastError():
            return of_error(error)
        case SQLAlchemyError():
            return of_database_error(error)
        case HTTPException():
            return of_http_error(error)
        case _:
            return of_bug(error)


def of_error(error: HoldfastError) -> Response[dict[str, Any]]:
    """Render an error of the domain, with `Retry-After` if the client may send the request again."""
    return _response(body := body_of(error), headers_of(error, body))


def headers_of(error: HoldfastError, body: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the headers that belong to the problem with this body."""
    if isinstance(error, NotAuthenticated):
        # RFC 6750. The reasons are our own words, without quotes.
        return {"WWW-Authenticate": f'Bearer error="invalid_token", error_description="{error.reason}"'}
    return {"Retry-After": str(body["retry_after"])} if isinstance(error, Unavailable) else {}


def body_of(error: HoldfastError, wait: int | None = None) -> dict[str, Any]:
    """Return the body of the problem that describes an error of the domain.

    `wait` is after how many seconds the client may send its request again; without it, a random time.
    """
    filled: dict[str, object] = {name: _plain(value) for name, value in vars(error).items() if value is not None}
    facts = {MEMBER_OF.get(name, name): value for name, value in filled.items()}
    if isinstance(error, NotFound):
        facts["field"] = error.field
    if isinstance(error, Unavailable):
        seconds = wait or wait_seconds(error)
        facts["retry_after"] = filled["retry_after_seconds"] = seconds
    return _body(OF_ERRORS[type(error)], facts, filled)


def of_database_error(error: SQLAlchemyError) -> Response[dict[str, Any]]:
    """Render that the database is unavailable, busy or not migrated, and any other error of it as our own fault."""
    if lacks_schema(error):
        return _of_unmigrated(error)
    passing = trouble(error)
    return of_error(passing) if passing else of_bug(error)


def _of_unmigrated(error: SQLAlchemyError) -> Response[dict[str, Any]]:
    log.error("request.not_migrated", error=str(error).splitlines()[0], advice="run bin/migrate")
    seconds = wait_seconds(DatabaseUnavailable())
    return _response(_body(NOT_MIGRATED, {"retry_after": seconds}, {}), {"Retry-After": str(seconds)})


def of_http_error(error: HTTPException) -> Response[dict[str, Any]]:
    """Render what the framework refused before a handler was called."""
    if isinstance(error, ValidationException):
        return of_error(_invalid(error))
    if error.status_code >= 500:
        return of_bug(error)
    refused = EARLY.get(error.status_code)
    if refused is None:
        return of_error(Invalid("request", sentence(error.detail)))
    headers = {name: methods.with_head(value) for name, value in (error.headers or {}).items() if name == "allow"}
    return _response(body_of_early(refused), headers)


def body_of_early(refused: ProblemType) -> dict[str, Any]:
    """Return the body of the problem that describes a refusal before a handler was called."""
    return _body(refused, {"field": refused.field} if refused.field else {}, {})


def _invalid(error: ValidationException) -> Invalid:
    """Return the first fault that the framework found."""
    if missing := _MISSING.match(error.detail):
        return Invalid(missing["name"], "it is required")
    faults: Any = error.extra or [{}]
    field, reason = faults[0].get("key", "request"), faults[0].get("message", error.detail)
    return Invalid("body", "it is empty, and JSON is required") if field == "data" else Invalid(field, sentence(reason))


_MISSING = re.compile(r"Missing required \w+ parameter '(?P<name>[^']*)' for ")


def of_bug(error: Exception) -> Response[dict[str, Any]]:
    """Render an error that should never happen, without showing its details to the client."""
    log.error("request.failed", exc_info=error)
    return _response(_body(BUG, {}, {}), {})


def _body(one: ProblemType, facts: Mapping[str, object], filled: Mapping[str, object]) -> dict[str, Any]:
    detail = one.detail.format(**filled) if filled else one.detail
    common = {"type": one.uri, "title": one.title, "status": one.status, "detail": detail}
    return {**common, "request_id": request_ids.current(), **facts}


def _response(body: dict[str, Any], headers: Mapping[str, str]) -> Response[dict[str, Any]]:
    return Response(body, status_code=body["status"], media_type=MEDIA_TYPE, headers=dict(headers))


def _plain(value: Any) -> object:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, list):
        return [{name: _plain(fact) for name, fact in one._asdict().items()} for one in value]
    return value if value is None or isinstance(value, int | str | dict) else str(value)
