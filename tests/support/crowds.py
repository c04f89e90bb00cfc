"""Many connections that never finish what they send."""

import resource
import socket
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import cycle

#: The parts in which a crowd sends a little more, one after the other, so that it does not take turns with silence.
PARTS = 50

#: The beginnings of requests. The first is none at all.
NOTHING = b""
HEAD = b"POST /reservations HTTP/1.1\r\nHost: holdfast\r\nContent-Type: application/json\r\n"
BODY = HEAD + b"Content-Length: 1000\r\n\r\n{"
CHUNKS = HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"


@dataclass
class Crowd:
    """Connections that send a beginning and then, each second, a little more. A closed one is opened again.

    `answered` counts the statuses that they got.
    """

    port: int
    count: int
    beginning: bytes = NOTHING
    more: bytes = b""
    every_seconds: float = 1.0
    address: str = "127.0.0.1"
    answered: Counter[str] = field(default_factory=Counter)

    def __enter__(self) -> "Crowd":
        allow_many_connections()
        self._connections = [self._open() for _ in range(self.count)]
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        for connection in self._connections:
            connection.close()

    def _open(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), source_address=(self.address, 0))
        connection.setblocking(False)
        with suppress(OSError):
            connection.send(self.beginning)
        return connection

    def _run(self) -> None:
        for part in cycle(range(PARTS)):
            if self._ended.wait(self.every_seconds / PARTS):
                return
            for place in range(part, self.count, PARTS):
                if self._has_ended(self._connections[place]):
                    self._connections[place].close()
                    self._connections[place] = self._open()

    def _has_ended(self, connection: socket.socket) -> bool:
        """Return whether the server has answered or closed the connection. If not, send a little more."""
        try:
            answer = connection.recv(1_000)
        except BlockingIOError:
            with suppress(OSError):
                connection.send(self.more)
            return False
        except OSError:
            answer = b""
        self.answered[answer[9:12].decode() or "closed"] += 1
        return True


def allow_many_connections() -> None:
    """Let this process open as many files as the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def send_slowly(connection: socket.socket, piece: bytes, seconds: float) -> None:
    """Send a piece again and again for this long, or until the connection breaks."""
    until = time.monotonic() + seconds
    with suppress(OSError):
        while time.monotonic() < until:
            connection.sendall(piece)
            time.sleep(0.05)
