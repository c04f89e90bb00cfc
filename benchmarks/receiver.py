"""A webhook receiver with two knobs in its environment: it takes its time, and one aggregate it never accepts.

A GET is answered with how many it has accepted.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

Application = Callable[[Any, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]


def create_app() -> Application:
    """Answer 204 after RECEIVER_SECONDS, and 408 where RECEIVER_REFUSES occurs in the event."""
    accepted = 0
    seconds = float(os.environ.get("RECEIVER_SECONDS", "0"))
    refuses = os.environ.get("RECEIVER_REFUSES", "").encode()

    async def application(
        scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        nonlocal accepted
        assert scope["type"] == "http"
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        if seconds:
            await asyncio.sleep(seconds)
        status, told = 408 if refuses and refuses in body else 204, b""
        if scope["method"] == "GET":
            status, told = 200, str(accepted).encode()
        else:
            accepted += status == 204
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": told})

    return application
