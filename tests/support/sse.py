"""A client of streams of server-sent events, as the HTML standard describes one."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf
from typing import Any

import httpx

from tests.support.waiting import PATIENCE_SECONDS

STREAM = {"Accept": "text/event-stream"}


@dataclass(frozen=True)
class ServerSent:
    """One event. One that is no event of the feed has no id."""

    id: str | None
    event: str
    data: Any


@dataclass
class Stream:
    """An open stream, read line by line."""

    response: httpx.Response
    comments: list[str] = field(default_factory=list)
    retry: int | None = None
    until: float = inf

    def __post_init__(self) -> None:
        self.events = self._parsed()

    def _parsed(self) -> Iterator[ServerSent]:
        fields: dict[str, str] = {}
        for line in self.response.iter_lines():
            assert time.monotonic() < self.until, "the stream has not ended"
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if not line:
                yield ServerSent(fields.get("id"), fields["event"], json.loads(fields["data"]))
                fields = {}
            elif not name:
                self.comments.append(value)
            elif name == "retry":
                self.retry = int(value)
            else:
                assert name not in fields, line
                fields[name] = value

    def take(self, count: int) -> list[ServerSent]:
        """Return the next events, so many of them."""
        return [next(self.events) for _ in range(count)]

    def rest(self) -> list[ServerSent]:
        """Return all events until the stream ends, which a heartbeat at the latest shows if it does not."""
        self.until = time.monotonic() + PATIENCE_SECONDS
        return list(self.events)


@contextmanager
def streaming(client: httpx.Client, path: str = "/events", **headers: str) -> Iterator[Stream]:
    """Open a stream of the feed. It must not be refused."""
    with client.stream("GET", path, headers=STREAM | headers) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"] == "text/event-stream"
        yield Stream(response)
