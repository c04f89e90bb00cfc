"""Requests that are too many: how they are answered, by RFC 9457 and draft-ietf-httpapi-ratelimit-headers-11.

A client that sends without a pause whatever it is answered would keep the event loop busy with refusals. So it gets
them late.
"""

import asyncio
import random
from collections.abc import Sequence

from api.auth.limits.limits import Exceeded
from api.http import problems
from api.http.asgi import Scope, Send
from api.http.edge.exchanges import refuse
from domain.runtime.errors import RateLimited

#: How long a sender that was refused often waits for a refusal, in seconds, in the mean: 200 connections cost 400
#: refusals a second. Each waits for a time of its own, between half and one and a half of it, so that they do not come
#: back all at once.
PAUSE_SECONDS = 0.5

#: The refusals that wait at a time. Further ones are sent at once, and end their connections.
MOST_PAUSED = 1_024


class TooMany:
    """Answers requests that are too many."""

    def __init__(self) -> None:
        self._paused = 0

    async def refuse(self, scope: Scope, exceeded: Exceeded, send: Send) -> None:
        """Answer that a request is too many."""
        is_paused = exceeded.is_repeated and self._paused < MOST_PAUSED
        if is_paused:
            self._paused += 1
            try:
                await asyncio.sleep(PAUSE_SECONDS * (0.5 + random.random()))
            finally:
                self._paused -= 1
        keeps = not _has_body(scope) and (is_paused or not exceeded.is_repeated)
        await refuse(problems.body_of(exceeded.error), send, headers_of(exceeded.error), keeps=keeps)


def headers_of(error: RateLimited) -> Sequence[tuple[bytes, bytes]]:
    """Return the headers that describe a limit that is used up."""
    policy = f'"{error.limit}";q={error.quota};w={error.seconds}'
    left = f'"{error.limit}";r=0;t={error.retry_after_seconds}'
    return (b"ratelimit-policy", policy.encode()), (b"ratelimit", left.encode())


def _has_body(scope: Scope) -> bool:
    return any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"])
