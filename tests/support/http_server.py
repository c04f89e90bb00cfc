"""A server that tests deliver to over a real connection. It answers as a test says."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class ReceivedRequest:
    """One request, as it arrived."""

    path: str
    headers: Mapping[str, str]
    body: bytes


class Server(ThreadingHTTPServer):
    """It keeps every request that arrived, in order. `answer` writes the response to the connection."""

    daemon_threads = True

    def __init__(self, address: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__((address, port), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/hook"
        self.requests: list[ReceivedRequest] = []
        self.connections: set[object] = set()
        self.answer: Callable[[BaseHTTPRequestHandler], None] = saying(200)

    def handle_error(self, request: object, client_address: object) -> None:
        """Report nothing: in some tests the client hangs up on purpose."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        # Header names are case-insensitive, and clients write them differently.
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.requests.append(ReceivedRequest(self.path, headers, body))
        self.server.connections.add(self.client_address)
        self.server.answer(self)

    def log_message(self, *_: object) -> None:
        pass


def saying(status: int, body: bytes = b"", **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    """Answer with this status, body and headers; an underscore in a header's name means a dash."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def sending(raw: bytes, *, hang_up: bool = True) -> Callable[[BaseHTTPRequestHandler], None]:
    """Answer with exactly these bytes, and hang up, unless `hang_up` is False."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(raw)
        handler.close_connection = hang_up

    return answer


def trickling(first: bytes, drop: bytes, *, every_seconds: float) -> Callable[[BaseHTTPRequestHandler], None]:
    """Answer with `first`, and then with `drop` again and again, until the client hangs up."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(first)
        while not _stopped.wait(every_seconds):
            handler.wfile.write(drop)

    return answer


_stopped = threading.Event()


@contextmanager
def a_server(address: str = "127.0.0.1", port: int = 0) -> Iterator[Server]:
    with Server(address, port) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
