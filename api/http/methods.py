"""HEAD and OPTIONS, which every resource has, as RFC 9110 §9.3.2 and §9.3.7 describe them."""

from collections import defaultdict
from collections.abc import Awaitable, Mapping
from typing import Any

from litestar import Litestar, Request, Response
from litestar.routes import HTTPRoute

from api.http.asgi import Message, Scope, Send

#: What the answer to `OPTIONS *` lists: the methods that at least one resource has.
ALL = "GET, HEAD, OPTIONS, PATCH, POST, PUT"


def prepare(scope: Scope, send: Send) -> Send:
    """Return the `send` for a request. One for HEAD is made one for GET, whose answer is sent without its content."""
    if scope["method"] != "HEAD":
        return send
    scope["method"], scope["is_head"] = "GET", True

    def sending(message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.body":
            message["body"] = b""
        return send(message)

    return sending


def with_head(allowed: str) -> str:
    """Return a list of methods, for the header Allow, with HEAD if it has GET."""
    methods = {method.strip() for method in allowed.split(",")}
    return ", ".join(sorted(methods | {"HEAD"} if "GET" in methods else methods))


def allowed(app: Litestar) -> Mapping[str, str]:
    """Return the methods of each resource, by the template of its path, for the state of the application.

    The framework's own answer lists the methods of one handler, where a path has several.
    """
    methods: dict[str, set[str]] = defaultdict(set)
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            methods[route.path_format] |= route.methods
    return {path: with_head(", ".join(those)) for path, those in methods.items()}


def options(request: Request[Any, Any, Any]) -> Response[None]:
    """Answer a request for OPTIONS."""
    allow = request.app.state.allowed[request.scope["path_template"]]
    return Response(None, status_code=204, headers={"Allow": allow})


async def answer_for_all(send: Send) -> None:
    """Answer `OPTIONS *`, which asks about the server and not about a resource."""
    await send({"type": "http.response.start", "status": 204, "headers": [(b"allow", ALL.encode())]})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
