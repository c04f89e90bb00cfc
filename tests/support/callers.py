"""Clients that send one request after the other, over connections that stay open, and note each answer."""

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import repeat
from statistics import median
from typing import Any

from tests.support.waiting import PATIENCE_SECONDS, wait_until

#: A caller whose connection broke opens another one after this time.
REOPEN_SECONDS = 0.05

#: What is noted instead of a status if there was no answer.
BROKEN = 0

#: A request as it is sent.
Request = bytes


def request(method: str, path: str, body: Mapping[str, Any] | None = None, **headers: str) -> Request:
    """Return a request. An underscore in the name of a header stands for a hyphen."""
    content = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: holdfast"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
    return "\r\n".join([*lines, "", ""]).encode() + content


def reserving(item_id: int, quantity: int = 1) -> Iterable[Request]:
    """Return a request to reserve an item, again and again."""
    return repeat(request("POST", "/reservations", {"item_id": item_id, "quantity": quantity}))


def getting(path: str) -> Iterable[Request]:
    """Return a request to get something, again and again."""
    return repeat(request("GET", path))


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered to which caller, and how long after its request. `body` is JSON."""

    caller: int
    status: int
    seconds: float
    body: bytes

    @property
    def problem(self) -> str:
        """The last part of the problem's type, such as `busy`."""
        return str(json.loads(self.body)["type"]).rpartition("/")[2]


@dataclass(frozen=True)
class Answers:
    """The answers that came within some seconds."""

    answers: Sequence[Answer]
    seconds: float

    @property
    def statuses(self) -> Counter[int]:
        return Counter(answer.status for answer in self.answers)

    @property
    def rate(self) -> float:
        """How many requests succeeded in a second."""
        return sum(200 <= answer.status < 300 for answer in self.answers) / self.seconds

    def quantile(self, share: float) -> float:
        """Return the time within which this share of the requests was answered."""
        ordered = sorted(answer.seconds for answer in self.answers)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))]

    def __str__(self) -> str:
        times = (
            f", p50 {self.quantile(0.5) * 1e3:.0f} ms, p99 {self.quantile(0.99) * 1e3:.0f} ms" if self.answers else ""
        )
        return f"{self.rate:.0f}/s{times}, {dict(self.statuses)}"


@dataclass
class Callers:
    """One connection for each series of requests, which sends one after the other was answered, until the block ends.

    At the end it waits for the last answers.
    `rest_seconds` is a pause after each answer. It makes the rate depend on how long a request waits, more than on how
    busy the machine is.
    """

    port: int
    series: Sequence[Iterable[Request]]
    rest_seconds: float = 0.0
    answers: list[Answer] = field(default_factory=list)

    def __enter__(self) -> "Callers":
        self._stopping = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._thread.join()

    def during(self, seconds: float) -> Answers:
        """Wait for this long. Return what was answered meanwhile."""
        began, before = time.monotonic(), len(self.answers)
        time.sleep(seconds)
        return Answers(self.answers[before:], time.monotonic() - began)

    def wait_for(self, count: int, status: int) -> None:
        """Wait until this many more requests are answered with this status."""
        before = len(self.answers)

        def are_answered() -> bool:
            return sum(answer.status == status for answer in self.answers[before:]) >= count

        wait_until(f"{count} more requests are answered {status}", are_answered)

    async def _run(self) -> None:
        await asyncio.gather(*(self._call(number, series) for number, series in enumerate(self.series)))

    async def _call(self, caller: int, series: Iterable[Request]) -> None:
        connection: Connection | None = None
        for sent in series:
            began = time.monotonic()
            try:
                connection = connection or await Connection.open(self.port)
                status, body = await connection.send(sent)
            except (OSError, asyncio.IncompleteReadError, TimeoutError):
                status, body = BROKEN, b""
            self.answers.append(Answer(caller, status, time.monotonic() - began, body))
            if status == BROKEN and connection:
                await connection.close()
                connection = None
            await asyncio.sleep(self.rest_seconds if status else REOPEN_SECONDS)
            if self._stopping:
                break
        if connection:
            await connection.close()


@dataclass(frozen=True)
class Connection:
    """One connection, on which one request after the other is sent."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def open(cls, port: int) -> "Connection":
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def send(self, sent: Request) -> tuple[int, bytes]:
        """Return the status and the body of the answer."""
        self.writer.write(sent)
        async with asyncio.timeout(PATIENCE_SECONDS):
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            body = await self.reader.readexactly(int(length.split(b":")[1]))
        return int(head.split()[1]), body

    async def close(self) -> None:
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()


@dataclass
class Ratios:
    """How the rate of callers under pressure compares with their rate without, in pairs of spans of time.

    The median of some pairs is judged, because anything else on the machine may slow a single span down.
    """

    callers: Callers
    pairs: list[tuple[Answers, Answers]] = field(default_factory=list)

    def compare(self, before: Answers, during: Answers) -> None:
        self.pairs.append((before, during))
        print(f"before: {before}; under pressure: {during}")

    @property
    def median(self) -> float:
        return median(during.rate / before.rate for before, during in self.pairs)
