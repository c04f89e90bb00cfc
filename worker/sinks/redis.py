"""`redis://host:6379/0?stream=NAME&maxlen=100000` adds to a Redis stream; `rediss://` does so over TLS.

`unix:///path/to/socket?stream=NAME` is a Redis on the same machine.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Event
from typing import Any, NoReturn
from urllib.parse import parse_qsl, urlsplit

from redis import ConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.retry import Retry

from domain.outbox import DELIVERED, NOT_SENT, Failed, Outcome, Row, Unreachable
from domain.outbox.routes import Route
from domain.runtime.settings import Settings
from worker.formats import format_of
from worker.relay.ordered_batches import in_ordered_batches, written
from worker.relay.ordering import BATCH_SECONDS
from worker.route_options import refuse, timeout_of

#: What is sent before the first answer is read. Sending more at once is no faster, and after a
#: connection that broke all of it goes out again.
PIPELINE = 500

#: Options of a URL, besides `db` in that of a Unix socket: what each is, for who gets one wrong.
OPTIONS = {
    "stream": "the name of the stream",
    "maxlen": "about how many entries it keeps, 1 or more; without it, all",
    "ssl_ca_certs": "a file of certificates to trust, for rediss://",
}

#: Redis says these of itself, and not of one entry: it is down, full, a replica, or set up otherwise.
OUTAGES = (
    AskError,
    ClusterDownError,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    TryAgainError,
)

#: The same, of answers for which the library has no class: how they begin.
OUTAGE_CODES = ("BUSY", "LOADING", "MASTERDOWN", "MISCONF", "NOAUTH", "NOREPLICAS", "unknown command")

Fields = Mapping[str, str]


class RedisStream:
    """One entry an event, its fields the message. The row alone retries: redis-py never."""

    def __init__(self, route: Route, settings: Settings, stopping: Event) -> None:
        timeout_seconds = timeout_of(route, settings)
        target = Target.of(route)
        self._stream, self._maxlen = target.stream, target.maxlen
        self._redis = target.open(route, timeout_seconds)
        self._format = format_of(route)
        self._stopping = stopping

    def deliver(self, rows: Sequence[Row]) -> Sequence[Outcome]:
        return in_ordered_batches(rows, self._send, self._stopping)

    def close(self) -> None:
        self._redis.close()

    def _send(self, rows: Sequence[Row]) -> Sequence[Outcome]:
        entries, outcomes = written(rows, self._fields)
        ends = time.monotonic() + BATCH_SECONDS
        for start in range(0, len(entries), PIPELINE):
            piece = entries[start : start + PIPELINE]
            answers = self._add([fields for _, fields in piece])
            outcomes.update((row.id, answer) for (row, _), answer in zip(piece, answers, strict=True))
            if (
                self._stopping.is_set()
                or time.monotonic() > ends
                or any(isinstance(answer, Unreachable) for answer in answers)
            ):
                break
        return [outcomes.get(row.id, NOT_SENT) for row in rows]

    def _fields(self, row: Row) -> Fields:
        message = self._format(row)
        return {
            **message.attributes,
            "event_id": str(row.event_id),
            "event_type": row.type,
            "aggregate_id": str(row.aggregate_id),
            "content_type": message.content_type,
            "body": message.body,
        }

    def _add(self, entries: Sequence[Fields]) -> Sequence[Outcome]:
        """Add entries in one go. After a broken connection nobody can tell which of them are in."""
        try:
            with self._redis.pipeline(transaction=False) as pipeline:
                for fields in entries:
                    pipeline.xadd(self._stream, fields, maxlen=self._maxlen, approximate=True)  # type: ignore[arg-type]
                return [self._outcome(answer) for answer in pipeline.execute(raise_on_error=False)]
        # What is no answer in Redis's protocol ends in a ValueError.
        except (RedisError, OSError, ValueError) as error:
            return [Unreachable(f"{type(error).__name__}: {error}")] * len(entries)

    def _outcome(self, answer: object) -> Outcome:
        if isinstance(answer, bytes) and b"-" in answer:
            return DELIVERED
        if not isinstance(answer, ResponseError):
            return Unreachable(f"Redis answered {answer!r}, which is no id of an entry")
        said = str(answer)
        if said.startswith("WRONGTYPE"):
            return Unreachable(f"{self._stream!r} is no stream: another kind of value has that name. {said}")
        if isinstance(answer, OUTAGES) or said.startswith(OUTAGE_CODES):
            return Unreachable(f"{type(answer).__name__}: {said}")
        return Failed(said)


@dataclass(frozen=True, kw_only=True)
class Target:
    """What the URL of a route says."""

    url: str
    stream: str
    maxlen: int | None
    connection: Mapping[str, Any]

    @classmethod
    def of(cls, route: Route) -> "Target":
        """Read the URL, or end the process and say what is wrong with it."""
        parts = urlsplit(route.url)
        known = OPTIONS | ({"db": "the number of the database"} if parts.scheme == "unix" else {})
        # Not as the other brokers' URLs are read (see `options_of`): to redis-py a plus is a space.
        given = parse_qsl(parts.query, keep_blank_values=True)
        options = dict(given)
        if strangers := options.keys() - known.keys():
            _refuse(route, f"unknown option {min(strangers)!r}", known)
        if len(options) < len(given):
            _refuse(route, "an option is given twice", known)
        if not options.get("stream"):
            _refuse(route, "it names no stream", known)
        if "ssl_ca_certs" in options and parts.scheme != "rediss":
            _refuse(route, f"ssl_ca_certs says nothing to {parts.scheme}://", known)
        database = options.pop("db", parts.path.strip("/") if parts.scheme != "unix" else "") or "0"
        if not database.isdecimal():
            _refuse(route, f"{database!r} is no number of a database", known)
        maxlen = options.get("maxlen")
        if maxlen is not None and not (maxlen.isdecimal() and int(maxlen) > 0):
            _refuse(route, f"maxlen is {maxlen!r}", known)
        return cls(
            url=route.url.partition("?")[0],
            stream=options["stream"],
            maxlen=int(maxlen) if maxlen else None,
            connection={"db": int(database)}
            | {name: value for name, value in options.items() if name.startswith("ssl_")},
        )

    def open(self, route: Route, timeout_seconds: float) -> Redis:
        """Return a client that connects when it is first used."""
        try:
            pool = ConnectionPool.from_url(
                self.url,
                socket_timeout=timeout_seconds,
                socket_connect_timeout=timeout_seconds,
                retry=Retry(NoBackoff(), 0),
                # With the older protocol it checks that a connection has nothing left over to say.
                protocol=2,
                **self.connection,
            )
        except ValueError as error:
            _refuse(route, str(error), OPTIONS)
        return Redis.from_pool(pool)


def _refuse(route: Route, reason: str, known: Mapping[str, str]) -> NoReturn:
    there_is = "; ".join(f"{name}: {what}" for name, what in known.items())
    refuse(route, f"{reason}. Its URL is redis://host:6379/0?stream=NAME, and its options are: {there_is}")
