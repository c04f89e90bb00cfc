"""The harness of `redis://`: a Redis of its own."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from redis import Redis

from deploy.embedded import RedisServer
from tests.conformance.harness import ProxiedHarness, Trouble
from tests.conformance.proxy import Proxy
from tests.conformance.redis_proxy import RedisProxy

STREAM = "bookings"


class RedisHarness(ProxiedHarness):
    scheme = "redis"
    impossible: ClassVar = {
        Trouble.REFUSES: "Redis says of no entry that it will never take it",
        Trouble.DENIES: "Redis lets a connection in, and then all of its entries",
    }

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._server = RedisServer(Path(self._folder.name))
        self._redis: Redis = Redis.from_url(self._server.url)
        self._commands = RedisProxy(self._server.url.removeprefix("unix://"), self._answer)
        super().__init__(Proxy(("127.0.0.1", self._commands.server_address[1])))
        self.url = f"redis://127.0.0.1:{self.proxy.port}/0?stream={STREAM}"

    def _answer(self, command: Sequence[bytes]) -> bytes | None:
        if command[0] != b"XADD":
            return None
        body = command[command.index(b"body") + 1].decode()
        return b"-ERR not this one\r\n" if self.intake.admit(body) is Trouble.FAILS else None

    def accepted(self) -> Sequence[str]:
        name = STREAM if self._redis.type(STREAM) in (b"stream", b"none") else "aside"
        entries: list[tuple[bytes, dict[bytes, bytes]]] = self._redis.xrange(name)  # type: ignore[assignment]
        return [fields[b"body"].decode() for _, fields in entries]

    def cause(self, trouble: Trouble, position: int = 1) -> None:
        if trouble is Trouble.RETURNS:
            self._redis.rename(STREAM, "aside")
            self._redis.set(STREAM, "no stream")
        if trouble is Trouble.THROTTLES:
            self._redis.config_set("maxmemory", 1)
        super().cause(trouble, position)

    def recover(self) -> None:
        if self._trouble is Trouble.RETURNS:
            self._redis.rename("aside", STREAM)
        self._redis.config_set("maxmemory", 0)
        super().recover()

    def close(self) -> None:
        super().close()
        self._commands.close()
        self._redis.close()
        self._server.stop()
        self._folder.cleanup()
