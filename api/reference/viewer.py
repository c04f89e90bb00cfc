"""The viewer of the OpenAPI document: Swagger UI, which a package ships, so that nothing is loaded from elsewhere."""

import asyncio
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from litestar import Request, Response, Router, get
from litestar.exceptions import NotFoundException
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, OpenAPIRenderPlugin

PATH = "/schema"

#: The viewer may load its own files and call this API, and nothing else.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
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

#: Browsers keep the files for an hour.
CACHED = {"Cache-Control": "public, max-age=3600"}


def config() -> OpenAPIConfig:
    """Return how the application serves its OpenAPI document and the viewer."""
    return OpenAPIConfig(
        title="Holdfast",
        version="1",
        description="Reservations that never oversell.",
        use_handler_docstrings=True,
        operation_id_creator=lambda handler, *_: handler.handler_name,
        openapi_router=Router(PATH, route_handlers=[], include_in_schema=False, response_headers=HEADERS),
        render_plugins=[Viewer(), JsonRenderPlugin()],
    )


class Viewer(OpenAPIRenderPlugin):
    """The page with the viewer, and its files."""

    def __init__(self) -> None:
        super().__init__(path="/")

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """Return the page."""
        return _PAGE.encode()

    def receive_router(self, router: Router) -> None:
        """Add the files. An unknown path gets the problem that it gets elsewhere, not a page of the framework."""
        router.routes = [route for route in router.routes if "{path:str}" not in route.path]
        router.register(get_viewer_file)


@get("/viewer/{name:str}", include_in_schema=False)
async def get_viewer_file(name: str) -> Response[bytes]:
    """Return a file of the viewer."""
    if name == "start.js":
        return Response(_START.encode(), media_type="text/javascript", headers=CACHED)
    if name not in FILES:
        raise NotFoundException
    file, media_type = FILES[name]
    return Response(await asyncio.to_thread((_package() / file).read_bytes), media_type=media_type, headers=CACHED)


def _package() -> Path:
    """Return the folder of the package, without importing it: that would read 9 MB of further viewers."""
    found = find_spec("offapi")
    assert found is not None and found.origin is not None
    return Path(found.origin).parent
