"""Large bodies of responses: a client that does not take one does not keep it in memory.

The server takes over whatever it is given at once, and keeps it for as long as the client likes. So a large body is
given to it part by part.
"""

from collections.abc import Awaitable

from api.http.asgi import Application, Message, Receive, Scope, Send
from api.http.edge.time_limits import TimeLimits
from api.http.limits import PART_BYTES, SEND_SECONDS
from domain.runtime.metrics import Counter

#: What all responses together may keep of large bodies. For each further one, the client is disconnected that has not
#: taken a part for the longest time.
MOST_UNSENT_BYTES = 32_000_000

CUT_OFF = Counter(
    "holdfast_responses_cut_off",
    f"Large responses that were ended because their client took nothing for {SEND_SECONDS:g} s, or for a shorter time"
    " while many others were sent.",
)


class LargeBodies:
    """An ASGI application that sends what another one answers, in parts if it is large."""

    def __init__(self, app: Application) -> None:
        self._app = app
        self._unsent = 0
        self._time_limits = TimeLimits(seconds=SEND_SECONDS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application, and send its answer when it is done."""
        large: list[bytes] = []

        def sending(message: Message) -> Awaitable[None]:
            if len(message.get("body", b"")) <= PART_BYTES or message.get("more_body"):
                return send(message)
            large.append(message["body"])
            return _done()

        await self._app(scope, receive, sending)
        if large:
            await self._send(large.pop(), send)

    async def _send(self, body: bytes, send: Send) -> None:
        if self._unsent + len(body) > MOST_UNSENT_BYTES:
            self._time_limits.end_oldest()
        self._unsent += len(body)
        try:
            for start in range(0, len(body), PART_BYTES):
                part = body[start : start + PART_BYTES]
                with self._time_limits.begin():
                    await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            # Without its end, so that the server closes the connection.
            CUT_OFF.inc()
        finally:
            self._unsent -= len(body)


async def _done() -> None:
    """Wait for nothing."""
