"""The viewer of the OpenAPI document: it works without any other server, and can do nothing but call the API."""

import re
from urllib.parse import urljoin

import httpx
import pytest

LOADED = re.compile(r'(?:src|href)="([^"]+)"')


def directives(answer: httpx.Response) -> dict[str, list[str]]:
    policy = [one.split() for one in answer.headers["Content-Security-Policy"].split(";")]
    return {name: sources for name, *sources in policy}


def test_everything_that_the_viewer_loads_comes_from_the_api(api: httpx.Client) -> None:
    page = api.get("/schema")

    assert (page.status_code, page.headers["Content-Type"].split(";")[0]) == (200, "text/html")
    loaded = [path for path in LOADED.findall(page.text) if path != "data:,"]
    assert len(loaded) == 3 and all(path.startswith("/schema/") for path in loaded)
    for path in loaded:
        file = api.get(path)
        kind = {"js": "text/javascript", "css": "text/css"}[path.rpartition(".")[2]]
        assert (file.status_code, file.headers["Content-Type"].split(";")[0]) == (200, kind), path
        assert int(file.headers["Content-Length"]) == len(file.content) > 100
    start = api.get("/schema/viewer/start.js").text
    (document,) = re.findall(r'url: "([^"]+)"', start)
    assert api.get(urljoin("/schema", document)).json()["openapi"].startswith("3.1")


@pytest.mark.parametrize("path", ["/schema", "/schema/openapi.json", "/schema/viewer/start.js"])
def test_a_browser_lets_the_viewer_load_its_own_files_and_call_the_api_and_nothing_else(
    api: httpx.Client, path: str
) -> None:
    answer = api.get(path)

    allowed = directives(answer)
    assert allowed["default-src"] == allowed["base-uri"] == allowed["form-action"] == ["'none'"]
    assert allowed["frame-ancestors"] == ["'none'"]
    assert allowed["script-src"] == allowed["connect-src"] == ["'self'"]
    assert {source for sources in allowed.values() for source in sources} <= {
        "'none'",
        "'self'",
        "'unsafe-inline'",  # in style-src alone, as the line above has shown for scripts
        "data:",
    }
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_the_page_has_no_script_of_its_own() -> None:
    """The policy would forbid it."""
    from api.reference import viewer

    assert "<script>" not in viewer._PAGE and "onload" not in viewer._PAGE


@pytest.mark.parametrize(
    "path", ["/schema/nothing", "/schema/viewer/nothing", "/schema/viewer/redoc.js", "/schema/redoc"]
)
def test_nothing_else_is_served_beside_the_viewer(api: httpx.Client, path: str) -> None:
    assert api.get(path).json()["type"] == "/problems/no-such-resource"
