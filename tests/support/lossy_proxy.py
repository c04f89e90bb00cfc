"""A proxy before a PostgreSQL that loses the answer to a statement, such as a COMMIT."""

import re
import socket
from contextlib import suppress

from sqlalchemy import make_url

from tests.conformance.proxy import Answers, Proxy, end


class LossyProxy(Proxy):
    """Passes on what is sent, until `lose` is called. A statement whose answer is lost has been passed on."""

    def __init__(self, url: str) -> None:
        address = make_url(url)
        super().__init__(f"{address.query['host']}/.s.PGSQL.5432")
        self.url, self.direct_url = str(address.set(host="127.0.0.1", port=self.port, query={})), url
        #: Whether nothing passes in either direction, not even the end of a connection.
        self.swallows = False
        self._losing = 0
        self._passing = 0
        self._how = Answers.SILENCE
        self._statements = re.compile(b"COMMIT")
        self._silent: set[socket.socket] = set()

    def lose(self, how: Answers, times: int = 1, *, after: int = 0, statements: str = "COMMIT") -> None:
        """Lose the answers to statements so many times, after so many others: by SILENCE from then on, or by HANG_UP.

        The `statements` are a pattern.
        """
        self._statements = re.compile(statements.encode())
        self._how, self._losing, self._passing = how, times, after

    def switch_to(self, server: str) -> None:
        """Lead to another server from now on, by the path of its socket. End all connections to this one."""
        self._server = server
        self.hang_up()

    def _send(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while sent := client.recv(65_536):
                if self.swallows:
                    continue
                is_lost = self._losing > 0 and self._statements.search(sent) is not None and self._loses_one()
                if is_lost:
                    self._silent.add(client)
                server.sendall(sent)
                if is_lost and self._how is Answers.HANG_UP:
                    break
        end(client, server)

    def _loses_one(self) -> bool:
        if self._passing:
            self._passing -= 1
            return False
        self._losing -= 1
        return True

    def _answer(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while (answered := server.recv(65_536)) and self._passes_on(answered, client):
                pass
        if not self.swallows:
            end(client, server)

    def _passes_on(self, answered: bytes, client: socket.socket) -> bool:
        return self.swallows or client in self._silent or super()._passes_on(answered, client)
