"""`redis://host:6379/0?stream=NAME&maxlen=100000` adds to a Redis stream; `rediss://` does so over TLS.

`unix:///path/to/socket?stream=NAME` is a Redis on the same machine.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

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
from redis.exceptions import ConnectionError as ConnectionBroke
from redis.exceptions import TimeoutError as TimedOut
from redis.retry import Retry

from domain.outbox import DELIVERED, NOT_SENT, Cause, Outcome, Route, Row, Unreachable
from domain.runtime.settings import Settings
from worker.formats import format_of
from worker.ordering.ordered_batches import deliver_in_batches, encode
from worker.ordering.pace import Pace
from worker.ordering.rules import BATCH_SECONDS
from worker.route_options import options_of, require_port, timeout_of, wrong_route
from worker.sinks.redis.connections import BOUNDED, Deadline

#: The entries that are sent before the first answer is read. Sending more at once is no faster, and all of them are
#: sent again if the connection breaks.
PIPELINE = 500

#: The options of a URL, and what each means, for an error message. A Unix socket's URL has the option `db` as well.
OPTIONS = {
    "stream": "the name of the stream",
    "maxlen": "about how many entries it keeps, 1 or more; without it, all",
    "ssl_ca_certs": "a file of certificates to trust, for rediss://",
}

#: Errors that concern Redis itself and not one entry: it is down, full, a replica, or configured otherwise.
OUTAGES = (
    AskError,
    ClusterDownError,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    TryAgainError,
)

#: The same, for errors that have no class in redis-py: how their messages begin.
OUTAGE_CODES = ("BUSY", "LOADING", "MASTERDOWN", "MISCONF", "NOAUTH", "NOREPLICAS", "unknown command")

Fields = Mapping[str, str]


class RedisStream:
    """Adds one entry for each event; its fields are the message. Only the row retries: redis-py never does."""

    def __init__(self, route: Route, settings: Settings, pace: Pace) -> None:
        self._timeout_seconds = timeout_of(route, settings)
        self._deadline = Deadline()
        target = Target.of(route)
        self._stream, self._maxlen = target.stream, target.maxlen
        self._redis = target.open(route, self._deadline)
        self._format = format_of(route)
        self._pace = pace

    def deliver(self, rows: Sequence[Row]) -> Sequence[Outcome]:
        return deliver_in_batches(rows, self._send, self._pace)

    def close(self) -> None:
        self._redis.close()

    def _send(self, rows: Sequence[Row]) -> Sequence[Outcome]:
        entries, outcomes = encode(rows, self._fields)
        deadline = time.monotonic() + BATCH_SECONDS
        for start in range(0, len(entries), PIPELINE):
            piece = entries[start : start + PIPELINE]
            added = self._add([fields for _, fields in piece])
            outcomes.update((row.id, outcome) for (row, _), outcome in zip(piece, added, strict=True))
            if (
                self._pace.stopping.is_set()
                or time.monotonic() > deadline
                or any(isinstance(outcome, Unreachable) for outcome in added)
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
        """Add entries in one pipeline. If the connection breaks, nobody knows which of them Redis has added."""
        self._deadline.start(self._timeout_seconds)
        try:
            return self._replies(entries)
        # redis-py raises ValueError for a reply that is not in Redis's protocol.
        except (RedisError, OSError, ValueError) as error:
            return [Unreachable(self._reason(error))] * len(entries)

    def _replies(self, entries: Sequence[Fields]) -> Sequence[Outcome]:
        """Add entries. If a connection that was kept open breaks before a byte came, add them on a new one."""
        try:
            return self._execute(entries)
        except ConnectionBroke:
            if self._deadline.opened or self._deadline.answered:
                raise
            # Redis may close a connection that is idle at any moment, so this says nothing about it. Others that are
            # idle may be closed as well. Entries that Redis did get are added twice, with the same ids.
            self._redis.connection_pool.disconnect(inuse_connections=False)
            return self._execute(entries)

    def _execute(self, entries: Sequence[Fields]) -> Sequence[Outcome]:
        with self._redis.pipeline(transaction=False) as pipeline:
            for fields in entries:
                pipeline.xadd(self._stream, fields, maxlen=self._maxlen, approximate=True)  # type: ignore[arg-type]
            return [self._outcome(reply) for reply in pipeline.execute(raise_on_error=False)]

    def _reason(self, error: Exception) -> str:
        if isinstance(error, TimedOut | TimeoutError):
            return f"Redis did not answer within {self._timeout_seconds:g} s"
        return f"{type(error).__name__}: {error}"

    def _outcome(self, reply: object) -> Outcome:
        if isinstance(reply, bytes) and b"-" in reply:
            return DELIVERED
        if not isinstance(reply, ResponseError):
            return Unreachable(f"Redis answered {reply!r}, which is no id of an entry")
        message = str(reply)
        if message.startswith("WRONGTYPE"):
            return Unreachable(f"{self._stream!r} is no stream: another kind of value has that name. {message}")
        if isinstance(reply, OUTAGES) or message.startswith(OUTAGE_CODES):
            return Unreachable(f"{type(reply).__name__}: {message}")
        return Unreachable(message, cause=Cause.ERROR)


@dataclass(frozen=True, kw_only=True)
class Target:
    """What the URL of a route says: which Redis, and which stream."""

    url: str
    stream: str
    maxlen: int | None
    connection: Mapping[str, Any]

    @classmethod
    def of(cls, route: Route) -> "Target":
        """Read the URL. Raises ConfigurationError."""
        parts = urlsplit(route.url)
        is_socket = parts.scheme == "unix"
        known = OPTIONS | ({"db": "the number of the database"} if is_socket else {})
        hint = _hint(known)
        require_port(route, hint)
        options = _options(route, known, hint)
        if "ssl_ca_certs" in options and parts.scheme != "rediss":
            raise wrong_route(route, f"ssl_ca_certs can be used with rediss:// only{hint}")
        database = options.get("db", "") if is_socket else parts.path.strip("/")
        if database and not database.isdecimal():
            raise wrong_route(route, f"{database!r} is no number of a database{hint}")
        maxlen = options.get("maxlen")
        if maxlen is not None and not (maxlen.isdecimal() and int(maxlen) > 0):
            raise wrong_route(route, f"maxlen is {maxlen!r}{hint}")
        return cls(
            url=route.url.partition("?")[0],
            stream=options["stream"],
            maxlen=int(maxlen) if maxlen else None,
            connection={"db": int(database or "0")}
            | {name: value for name, value in options.items() if name.startswith("ssl_")},
        )

    def open(self, route: Route, deadline: Deadline) -> Redis:
        """Return a client that connects when it is first used. Raises ConfigurationError."""
        try:
            pool = ConnectionPool.from_url(
                self.url,
                connection_class=BOUNDED[urlsplit(self.url).scheme],
                deadline=deadline,
                retry=Retry(NoBackoff(), 0),
                # With the older protocol, redis-py uses a connection only if no unread reply is left on it.
                protocol=2,
                **self.connection,
            )
        except ValueError as error:
            raise wrong_route(route, f"{error}{_hint(OPTIONS)}") from error
        return Redis.from_pool(pool)


def _options(route: Route, known: Mapping[str, str], hint: str) -> Mapping[str, str]:
    options = options_of(route, hint)
    if unknown := options.keys() - known.keys():
        raise wrong_route(route, f"unknown option {min(unknown)!r}{hint}")
    if not options.get("stream"):
        raise wrong_route(route, f"it names no stream{hint}")
    return options


def _hint(known: Mapping[str, str]) -> str:
    options = "; ".join(f"{name}: {meaning}" for name, meaning in known.items())
    return f". Its URL is redis://host:6379/0?stream=NAME, and its options are: {options}"
