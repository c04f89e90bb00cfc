"""The OpenAPI document and its viewer: who has them asks whether they have changed, and they are not made each time."""

import httpx
import psutil
import pytest

from domain.runtime.settings import Settings
from tests.support.api_process import Served, serving

PATHS = [
    "/schema",
    "/schema/openapi.json",
    "/schema/viewer/start.js",
    "/schema/viewer/bundle.js",
    "/schema/viewer/style.css",
]

#: An answer of half a kilobyte, from the same framework.
SMALL = "/problems/sold-out"

#: What the document may take of the processor, compared to the small answer. It is some hundred times as large, and
#: copied into the connection: that is twice as much. Made for each request, it took more than four times as much.
MOST_TIMES = 3.5


@pytest.mark.parametrize("path", PATHS)
def test_a_client_keeps_it_and_asks_whether_it_has_changed(api: httpx.Client, path: str) -> None:
    first = api.get(path)
    etag = first.headers["ETag"]

    known = (etag, f'W/{etag}, "other"', f'"other",{etag}', "*")
    again = [api.get(path, headers={"If-None-Match": one}) for one in known]

    assert first.headers["Cache-Control"].startswith("public, max-age=")
    for answer in again:
        assert (answer.status_code, answer.content) == (304, b"")
        assert {name: answer.headers[name] for name in ("ETag", "Cache-Control")} == {
            name: first.headers[name] for name in ("ETag", "Cache-Control")
        }


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("known", ['"other"', "nonsense", '""', '"' * 1_000, ", ,"])
def test_a_client_that_has_something_else_gets_it(api: httpx.Client, path: str, known: str) -> None:
    answer = api.get(path, headers={"If-None-Match": known})

    assert (answer.status_code, answer.content) == (200, api.get(path).content)


def test_different_things_have_different_etags(api: httpx.Client) -> None:
    assert len({api.get(path).headers["ETag"] for path in PATHS}) == len(PATHS)


def test_head_has_the_same_headers(api: httpx.Client) -> None:
    for path in PATHS:
        head, got = api.head(path), api.get(path)
        assert head.content == b""
        for name in ("ETag", "Cache-Control", "Content-Type", "Content-Length"):
            assert head.headers[name] == got.headers[name], (path, name)


@pytest.mark.slow
@pytest.mark.alone
def test_the_document_takes_little_more_of_the_processor_than_a_small_answer(settings: Settings) -> None:
    with serving() as served:
        for path in (SMALL, "/schema/openapi.json"):
            computed(served, path, 20)
        small, document = computed(served, SMALL, 300), computed(served, "/schema/openapi.json", 300)

    print(f"{small * 1e3:.2f} ms for {SMALL}, {document * 1e3:.2f} ms for the document")
    assert document < MOST_TIMES * small


def computed(served: Served, path: str, times: int) -> float:
    """Return what the API takes of the processor for a request, in seconds."""
    main = psutil.Process(served.process.pid)
    processes = [main, *main.children(recursive=True)]

    def taken() -> float:
        return sum(sum(process.cpu_times()[:2]) for process in processes)

    before = taken()
    for _ in range(times):
        assert served.client.get(path).status_code == 200
    return (taken() - before) / times
