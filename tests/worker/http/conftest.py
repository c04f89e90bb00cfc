"""What the tests of HTTP calls are given: a server."""

from collections.abc import Iterator

import pytest

from tests.support.http_server import Server, a_server


@pytest.fixture
def server() -> Iterator[Server]:
    with a_server() as server:
        yield server
