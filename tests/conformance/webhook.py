"""The world of `https://`: an HTTP server that takes posts."""

from collections.abc import Sequence
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler

from tests.conformance.harness import Gated, Trouble
from tests.conformance.proxy import Gate
from tests.support.servers import a_server, saying

STATUSES = {Trouble.REFUSES: 422, Trouble.FAILS: 408, Trouble.RETURNS: 404, Trouble.THROTTLES: 429, None: 200}


class WebhookWorld(Gated):
    returned_is_dead = True

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._server = self._stack.enter_context(a_server())
        self._server.answer = self._answer
        self._accepted: list[str] = []
        super().__init__(Gate(self._server.server_address[:2]))  # type: ignore[arg-type]
        self.url = f"http://127.0.0.1:{self.gate.port}/hook"

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        heard_id = handler.headers["webhook-id"]
        body = next(heard.body.decode() for heard in self._server.heard if heard.headers["webhook-id"] == heard_id)
        status = STATUSES[self.door.meets(body)]
        if status == 200:
            self._accepted.append(body)
        saying(status)(handler)

    def accepted(self) -> Sequence[str]:
        return self._accepted

    def close(self) -> None:
        super().close()
        self._stack.close()
