"""A client of streams of server-sent events, as the HTML standard describes one."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

STREAM = {"Accept": "text/event-stream"}


@dataclass(frozen=True)
class ServerSent:
    """One event."""

    id: str
    event: str
    data: Any


@dataclass
class Stream:
    """An open stream, read line by line."""

    response: httpx.Response
    comments: list[str] = field(default_factory=list)
    retry: int | None = None

    def __post_init__(self) -> None:
        self.events = self._parsed()

    def _parsed(self) -> Iterator[ServerSent]:
        fields: dict[str, str] = {}
        for line in self.response.iter_lines():
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if not line:
                yield ServerSent(fields["id"], fields["event"], json.loads(fields["data"]))
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
        """Return all events until the stream ends."""
        return list(self.events)


@contextmanager
def streaming(client: httpx.Client, path: str = "/events", **headers: str) -> Iterator[Stream]:
    """Open a stream of the feed. It must not be refused."""
    with client.stream("GET", path, headers=STREAM | headers) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"] == "text/event-stream"
        yield Stream(response)
