"""A webhook receiver with two settings in its environment: how long it takes, and which aggregate it never accepts.

A GET is answered with the number of events that it has accepted.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
Application = Callable[[Any, Receive, Send], Awaitable[None]]


def create_app() -> Application:
    """Answer 204 after RECEIVER_SECONDS, and 408 where RECEIVER_REFUSES occurs in the event."""
    accepted = 0
    seconds = float(os.environ.get("RECEIVER_SECONDS", "0"))
    refuses = os.environ.get("RECEIVER_REFUSES", "").encode()

    async def application(scope: Any, receive: Receive, send: Send) -> None:
        nonlocal accepted
        assert scope["type"] == "http"
        event = await _read(receive)
        if seconds:
            await asyncio.sleep(seconds)
        if scope["method"] == "GET":
            await _answer(send, 200, str(accepted).encode())
        elif refuses and refuses in event:
            await _answer(send, 408)
        else:
            accepted += 1
            await _answer(send, 204)

    return application


async def _read(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


async def _answer(send: Send, status: int, body: bytes = b"") -> None:
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": body})
