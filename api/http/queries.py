"""The query of a request: each parameter must be known to the operation, and be given once."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import parse_qsl

import msgspec
from litestar import Litestar, Request
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute

from api.http.limits import SHOWN_CHARACTERS
from domain.runtime.errors import Invalid

#: How the OpenAPI document describes a timestamp, which is read as text.
TIMESTAMP = {"format": "date-time"}

#: More parameters than any operation has.
MOST_PARAMETERS = 50


def require_known(request: Request[Any, Any, Any]) -> None:
    """Raise Invalid for a parameter that the handler of a request does not have, or that is given twice.

    Otherwise a misspelt filter would be ignored, and the list would show everything. It also keeps the framework from
    reading, and remembering, queries of thousands of parameters.
    """
    query: bytes = request.scope["query_string"]
    if not query:
        return
    if query.count(b"&") >= MOST_PARAMETERS:
        raise Invalid("query", f"it has more than {MOST_PARAMETERS} parameters")
    names = request.app.state.query_parameters[request.route_handler]
    seen: set[str] = set()
    for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name not in names:
            raise Invalid(name[:SHOWN_CHARACTERS], "unknown query parameter")
        if name in seen:
            raise Invalid(name, "it is given more than once")
        seen.add(name)


def timestamp_of(name: str, written: str | None) -> datetime | None:
    """Read a timestamp. One without UTC offset is refused, because its meaning depends on the place. Raises Invalid."""
    try:
        return None if written is None else msgspec.convert(written, Annotated[datetime, msgspec.Meta(tz=True)])
    except msgspec.ValidationError as error:
        raise Invalid(name, "it must be an RFC 3339 timestamp with UTC offset, such as 2030-01-31T12:00:00Z") from error


def known(app: Litestar) -> Mapping[HTTPRouteHandler, Collection[str]]:
    """Return the names of the query parameters of each handler, for the state of the application."""
    routes = [route for route in app.routes if isinstance(route, HTTPRoute)]
    return {
        handler: {parameter.field_alias for parameter in model.expected_query_params}
        for route in routes
        for handler, model in route.route_handler_map.values()
    }
