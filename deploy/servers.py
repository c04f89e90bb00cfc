"""The PostgreSQL and the Redis that `bin/up` starts, unless the environment names others."""

import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Protocol

from deploy.embedded import PostgreSQL, RedisServer
from deploy.parts import CannotStart, Death
from domain.runtime.settings import HOME

#: How often it is asked whether a server runs: reading that takes a millisecond.
LOOK_SECONDS = 1.0

POSTGRESQL_LOST = "The API answers 503 and events wait meanwhile. What was committed is kept."
REDIS_LOST = "Events may wait until it is back. It carries wake-ups only, so none is lost."


class Embedded(Protocol):
    """A server that runs as a process of its own, which outlives the one that has started it."""

    def start(self) -> None: ...

    def runs(self) -> bool: ...


@dataclass
class Server:
    """A server that runs, and is started again when it has died. Its log is at `log`."""

    name: str
    lost: str
    log: str
    _server: Embedded
    _looked_at: float = field(default=0.0, init=False)

    def start(self) -> None:
        if self._server.runs():
            return
        try:
            self._server.start()
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:
            raise CannotStart(f"{type(error).__name__}; see {self.log}") from error

    def death(self) -> Death | None:
        if time.monotonic() < self._looked_at + LOOK_SECONDS:
            return None
        self._looked_at = time.monotonic()
        return None if self._server.runs() else Death(f"its process has ended; see {self.log}")


def start(running: ExitStack, given: Mapping[str, str]) -> tuple[Sequence[Server], Mapping[str, str]]:
    """Start the servers that are not `given`. They are stopped at the end. Return them, and where all servers are."""
    servers, environment = [], dict(given)
    if "DATABASE_URL" not in given:
        postgresql = PostgreSQL(HOME / "postgresql")
        running.callback(_stop, postgresql)
        environment["DATABASE_URL"] = postgresql.url
        servers.append(Server("postgresql", POSTGRESQL_LOST, str(HOME / "postgresql" / "log"), postgresql))
    if "REDIS_URL" not in given and "BROKER_URL" not in given:
        redis = RedisServer(HOME / "redis")
        running.callback(redis.stop)
        environment["REDIS_URL"] = redis.url
        servers.append(Server("redis", REDIS_LOST, str(HOME / "redis" / "log"), redis))
    return servers, environment


def _stop(postgresql: PostgreSQL) -> None:
    """Stop the server, at once if it does not stop in time: what was committed is there again at its next start."""
    try:
        postgresql.stop()
    except subprocess.SubprocessError:
        postgresql.stop("immediate")
