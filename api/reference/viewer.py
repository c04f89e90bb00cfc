"""The viewer of the OpenAPI document: Swagger UI, which a package ships, so that nothing is loaded from elsewhere."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from litestar import Request, Response, Router, get
from litestar.exceptions import NotFoundException
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import OpenAPIRenderPlugin
from litestar.openapi.spec import OpenAPI
from litestar.serialization import encode_json

from api.reference.kept import Kept

PATH = "/schema"

#: The document's media type, as the OpenAPI specification registers it.
MEDIA_TYPE = "application/vnd.oai.openapi+json"

#: The viewer may load its own files and call this API, and nothing else.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
}

_PAGE = f"""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Holdfast: the HTTP API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{PATH}/viewer/style.css">
</head>
<body>
<div id="viewer"></div>
<script src="{PATH}/viewer/bundle.js"></script>
<script src="{PATH}/viewer/start.js"></script>
</body>
</html>
"""

#: No validator, because it would send the document to a server elsewhere, and no settings from the query.
_START = f"""\
SwaggerUIBundle({{
  url: "{PATH}/openapi.json",
  dom_id: "#viewer",
  deepLinking: true,
  displayRequestDuration: true,
  tryItOutEnabled: true,
  validatorUrl: null,
  queryConfigEnabled: false,
}});
"""

#: The files of the viewer in the package, by the names under which they are served, with their media types.
FILES: Mapping[str, tuple[str, str]] = {
    "bundle.js": ("swagger_bundle.js", "text/javascript"),
    "style.css": ("swagger_style.css", "text/css"),
}

#: How long a client keeps the viewer, and the document, which changes with each release.
VIEWER_SECONDS, DOCUMENT_SECONDS = 3_600, 300


def config() -> OpenAPIConfig:
    """Return how the application serves its OpenAPI document and the viewer."""
    return OpenAPIConfig(
        title="Holdfast",
        version="1",
        description="Reservations that never oversell.",
        use_handler_docstrings=True,
        operation_id_creator=lambda handler, *_: handler.handler_name,
        openapi_router=Router(PATH, route_handlers=[], include_in_schema=False, response_headers=HEADERS),
        render_plugins=[Viewer()],
    )


class Viewer(OpenAPIRenderPlugin):
    """The handlers of the document and of its viewer, in place of those of the framework.

    The framework would make the document anew for each request. An unknown path gets the problem that it gets
    elsewhere, not a page of the framework.
    """

    def __init__(self) -> None:
        super().__init__(path="/")

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """Raise RuntimeError: the handler that would call it is not there."""
        raise RuntimeError("The viewer has handlers of its own.")

    def receive_router(self, router: Router) -> None:
        """Replace all handlers."""
        router.routes = []
        for handler in (get_viewer, get_document, get_viewer_file):
            router.register(handler)


def made(document: OpenAPI) -> Mapping[str, Kept]:
    """Return all that is served, by the path below PATH, for the state of the application."""
    package = _package()
    files = {
        f"/viewer/{name}": _of_viewer((package / file).read_bytes(), media_type)
        for name, (file, media_type) in FILES.items()
    }
    return {
        "/": _of_viewer(_PAGE.encode(), "text/html"),
        "/openapi.json": Kept.of(encode_json(document.to_schema()), MEDIA_TYPE, seconds=DOCUMENT_SECONDS),
        "/viewer/start.js": _of_viewer(_START.encode(), "text/javascript"),
        **files,
    }


def _of_viewer(content: bytes, media_type: str) -> Kept:
    return Kept.of(content, media_type, seconds=VIEWER_SECONDS)


@get("/", include_in_schema=False)
async def get_viewer(request: Request[Any, Any, Any]) -> Response[bytes | None]:
    """Return the page with the viewer."""
    return _answer(request, "/")


@get("/openapi.json", include_in_schema=False)
async def get_document(request: Request[Any, Any, Any]) -> Response[bytes | None]:
    """Return the OpenAPI document."""
    return _answer(request, "/openapi.json")


@get("/viewer/{name:str}", include_in_schema=False)
async def get_viewer_file(request: Request[Any, Any, Any], name: str) -> Response[bytes | None]:
    """Return a file of the viewer."""
    return _answer(request, f"/viewer/{name}")


def _answer(request: Request[Any, Any, Any], path: str) -> Response[bytes | None]:
    found: Kept | None = request.app.state.reference.get(path)
    if found is None:
        raise NotFoundException
    return found.answer(request)


def _package() -> Path:
    """Return the folder of the package, without importing it: that would read 9 MB of further viewers."""
    found = find_spec("offapi")
    assert found is not None and found.origin is not None
    return Path(found.origin).parent
