"""The operation of a request, before it is routed: for the few operations that have a limit, or are open to anybody."""

import re
from collections.abc import Collection, Mapping, Sequence

from litestar import Litestar
from litestar.routes import HTTPRoute

from api.auth.operations import SCHEMA, operation_of
from api.http.asgi import Scope
from domain.access import OPEN

_PARAMETER = re.compile(r"\{[^}]*\}")

#: The OpenAPI document and its viewer, whose routes the framework makes itself.
_OF_FRAMEWORK = re.compile(re.escape(SCHEMA) + r"(/.*)?")


class EdgeOperations:
    """Finds the operation of a request by its method and its path."""

    def __init__(self, app: Litestar, wanted: Collection[str]) -> None:
        self._wanted = _patterns(app, wanted)
        self._open = _patterns(app, OPEN)

    def of(self, scope: Scope) -> str | None:
        """Return the operation of a request, if it is one of those wanted."""
        return _find(self._wanted, scope) if self._wanted else None

    def is_open(self, scope: Scope) -> bool:
        """Return whether a request is for an operation that needs no credentials."""
        if scope["method"] == "OPTIONS" or _OF_FRAMEWORK.fullmatch(scope["path"]):
            return True
        return _find(self._open, scope) is not None


_Patterns = Mapping[str, Sequence[tuple[re.Pattern[str], str]]]


def _patterns(app: Litestar, wanted: Collection[str]) -> _Patterns:
    """Return the paths of operations, and the operations, by method."""
    found: dict[str, list[tuple[re.Pattern[str], str]]] = {}
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            pattern = re.compile("[^/]+".join(map(re.escape, _PARAMETER.split(route.path_format))))
            for handler in route.route_handlers:
                if operation_of(handler) in wanted and not route.path.startswith(SCHEMA):
                    for method in handler.http_methods:
                        found.setdefault(method, []).append((pattern, operation_of(handler)))
    return found


def _find(patterns: _Patterns, scope: Scope) -> str | None:
    # The router takes a slash at the end as if it were not there.
    path = scope["path"].rstrip("/") or "/"
    return next((one for pattern, one in patterns.get(scope["method"], ()) if pattern.fullmatch(path)), None)
