"""The harness of `https://`: an HTTP server."""

from collections.abc import Sequence
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler

from tests.conformance.harness import ProxiedHarness, Trouble
from tests.conformance.proxy import Proxy
from tests.support.http_server import a_server, saying

STATUSES = {
    Trouble.REFUSES: 422,
    Trouble.FAILS: 500,
    Trouble.DENIES: 404,
    Trouble.RETURNS: 401,
    Trouble.THROTTLES: 429,
    None: 200,
}


class WebhookHarness(ProxiedHarness):
    scheme = "http"

    #: The header of a request that names its event.
    id_header = "webhook-id"

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._server = self._stack.enter_context(a_server())
        self._server.answer = self._answer
        self._accepted: list[str] = []
        super().__init__(Proxy(self._server.server_address[:2]))  # type: ignore[arg-type]
        self.url = f"http://127.0.0.1:{self.proxy.port}/hook"

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        named = handler.headers[self.id_header]
        body = next(
            request.body.decode() for request in self._server.requests if request.headers[self.id_header] == named
        )
        status = STATUSES[self.intake.admit(body)]
        if status == 200:
            self._accepted.append(body)
        saying(status)(handler)

    def accepted(self) -> Sequence[str]:
        return self._accepted

    def close(self) -> None:
        super().close()
        self._stack.close()
