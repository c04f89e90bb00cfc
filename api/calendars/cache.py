"""A cache in Redis that never makes an answer wrong, and hardly ever slow."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, cast

import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

T = TypeVar("T")

#: How long an entry is kept. It bounds what the cache takes of Redis, and nothing else: whoever uses an entry sees in
#: it whether it still holds.
KEPT_SECONDS = 5

#: A larger entry is not kept: Redis has the wake-ups of the workers as well.
MAX_ENTRY_BYTES = 262_144

#: A Redis that does not answer within this time is not asked again for some time. Then one request tries it.
TIMEOUT_SECONDS = 0.1
REST_SECONDS = 5.0

#: So many requests use it at the same time.
CONNECTIONS = 8

log = structlog.get_logger()


class Cache:
    """Keeps bytes by keys for some seconds, if there is a Redis and it answers. It belongs to one event loop."""

    def __init__(self, url: str) -> None:
        """`url` is that of the broker, which may be no Redis."""
        self._client = None if url.startswith("amqp") else _connect(url)
        # The pool of the library that waits for a connection can wait for longer than its time-out.
        self._places = asyncio.Semaphore(CONNECTIONS)
        self._rests_until = 0.0
        self._is_down = False

    async def get(self, key: bytes) -> bytes | None:
        """Return what is kept under a key."""
        # Without decoding, which nobody has asked for, it is bytes.
        return cast(bytes | None, await self._try(lambda redis: redis.get(_PREFIX + key)))

    async def put(self, key: bytes, entry: bytes) -> None:
        """Keep an entry under a key."""
        if len(entry) <= MAX_ENTRY_BYTES:
            await self._try(lambda redis: redis.set(_PREFIX + key, entry, ex=KEPT_SECONDS))

    async def close(self) -> None:
        """Disconnect."""
        if self._client is not None:
            await self._client.aclose()

    async def _try(self, ask: Callable[[Redis], Awaitable[T]]) -> T | None:
        if self._client is None or time.monotonic() < self._rests_until:
            return None
        if self._is_down:
            self._rest()  # so that no other request tries it meanwhile
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS), self._places:
                answer = await ask(self._client)
        except (RedisError, OSError) as error:
            self._rest()
            if not self._is_down:
                log.warning("availability.cache_unreachable", error=type(error).__name__)
            self._is_down = True
            return None
        self._rests_until, self._is_down = 0.0, False
        return answer

    def _rest(self) -> None:
        self._rests_until = time.monotonic() + REST_SECONDS


_PREFIX = b"holdfast:availability:"


def _connect(url: str) -> Redis:
    return Redis.from_url(
        url, socket_timeout=TIMEOUT_SECONDS, socket_connect_timeout=TIMEOUT_SECONDS, retry=Retry(NoBackoff(), 0)
    )
