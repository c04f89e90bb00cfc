"""A TCP proxy before a real server: it passes on what is sent, and may suppress or damage the answers."""

import socket
import threading
import time
from contextlib import suppress
from enum import Enum, auto


class Answers(Enum):
    """What becomes of the bytes of the server's answers. By then the server has done what it was asked to."""

    PASS = auto()
    SILENCE = auto()
    HANG_UP = auto()
    NONSENSE = auto()
    HALF = auto()
    DRIPS = auto()


#: The time between two bytes of an answer that drips.
DRIP_SECONDS = 0.2

NONSENSE = b"\x00\xff nonsense \xfe\r\n\r\n" * 8

#: The address of a server: a host and a port, or the path of a Unix socket.
Address = tuple[str, int] | str


class Proxy:
    """Listens on a port of its own, which stays the same when the proxy is shut and opened again."""

    def __init__(self, server: Address) -> None:
        self.answers = Answers.PASS
        self._server = server
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._start(self._accept, self._listener)

    def shut(self) -> None:
        """Refuse connections, and end those that there are."""
        self._stop_listening()
        # The port stays bound without listening, so that nobody else gets it meanwhile.
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", self.port))
        self.hang_up()

    def open(self) -> None:
        """Accept connections again."""
        self._listener.listen()
        self._start(self._accept, self._listener)

    def hang_up(self) -> None:
        """End all connections that there are."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            end(*pair)

    def close(self) -> None:
        self._stop_listening()
        self.hang_up()
        for thread in self._threads:
            thread.join()

    def _start(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _stop_listening(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                server = _connected(self._server)
            except OSError:
                client.close()
                continue
            for connection in (client, server):
                if connection.family == socket.AF_INET:
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._pairs.append((client, server))
            self._start(self._send, client, server)
            self._start(self._answer, client, server)

    def _send(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while sent := client.recv(65_536):
                server.sendall(sent)
        end(client, server)

    def _answer(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while (answered := server.recv(65_536)) and self._passes_on(answered, client):
                pass
        end(client, server)

    def _passes_on(self, answered: bytes, client: socket.socket) -> bool:
        """Pass an answer on, or suppress or damage it. Return whether the connection continues."""
        match self.answers:
            case Answers.PASS:
                client.sendall(answered)
            case Answers.NONSENSE:
                client.sendall(NONSENSE)
            case Answers.HALF:
                client.sendall(answered[: len(answered) // 2])
            case Answers.DRIPS:
                for byte in answered:
                    client.sendall(bytes([byte]))
                    time.sleep(DRIP_SECONDS)
        return self.answers not in {Answers.HANG_UP, Answers.HALF}


def _connected(server: Address) -> socket.socket:
    if not isinstance(server, str):
        return socket.create_connection(server)
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(server)
    except OSError:
        connection.close()
        raise
    return connection


def end(*connections: socket.socket) -> None:
    for connection in connections:
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()
