"""Used connections: on which of them a request has come. Those without any are ended."""

from collections.abc import Callable

from api.http.asgi import Application, Receive, Scope, Send


class UsedConnections:
    """An ASGI application that notes the peer of each request, and calls another one."""

    def __init__(self, app: Application, use: Callable[[tuple[str, int]], None]) -> None:
        self._app = app
        self._use = use

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application."""
        if scope["type"] == "http":
            # The server writes the port as text.
            address, port = scope["client"]
            self._use((address, int(port)))
        await self._app(scope, receive, send)
