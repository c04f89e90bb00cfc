"""Operations: the name by which the table of rights knows each handler of HTTP."""

from litestar import Litestar
from litestar.handlers import BaseRouteHandler
from litestar.routes import HTTPRoute

from domain.access import OPEN, RIGHTS

#: The path below which the framework serves the OpenAPI document.
SCHEMA = "/schema"

#: What the framework serves by itself: the OpenAPI document and its viewer.
OF_FRAMEWORK = "reference.read"


def operation_of(handler: BaseRouteHandler) -> str:
    """Return the operation of a handler, which its decorator names."""
    operation: str = handler.opt.get("operation", OF_FRAMEWORK)
    return operation


def require_known(app: Litestar) -> None:
    """Raise RuntimeError if a handler has no operation, or one that the table of rights does not have."""
    for route in app.routes:
        if isinstance(route, HTTPRoute) and not route.path.startswith(SCHEMA):
            for handler in route.route_handlers:
                # The framework adds handlers of OPTIONS, before which we answer.
                if handler.http_methods != {"OPTIONS"} and handler.opt.get("operation") not in {*RIGHTS, *OPEN}:
                    raise RuntimeError(f"{route.path}: {handler} has no operation of domain.access.rights.")
