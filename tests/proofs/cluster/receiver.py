"""A webhook receiver that answers by a rule of the proof, and remembers every event that was sent to it."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.proofs.cluster.partners import Receipt, Received

#: Returns the status that an event is answered with.
Rule = Callable[[Mapping[str, Any]], int]


def healthy(_: Mapping[str, Any]) -> int:
    return 204


def at_once(_: Mapping[str, Any]) -> None:
    """Let every call be answered at once."""


@dataclass
class Receiver:
    """`calls` are the events that were sent to `url`, each with the status of its answer, in order.

    `delay` is called before an event is answered. It may take its time, and keeps no other call waiting.
    """

    url: str
    rule: Rule = healthy
    delay: Callable[[Mapping[str, Any]], None] = at_once
    calls: list[tuple[Receipt, int]] = field(default_factory=list)

    def received(self) -> Received:
        """Return the events that it took, in order of first receipt."""
        taken = [receipt for receipt, status in list(self.calls) if status < 300]
        return Received(list(dict.fromkeys(taken)), len(taken) - len(set(taken)))

    def calls_for(self, booking_id: str) -> int:
        """Return how many calls had an event of this booking."""
        return sum(receipt.booking_id == booking_id for receipt, _ in list(self.calls))


@contextmanager
def a_receiver() -> Iterator[Receiver]:
    """Listen until the block ends."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            event = json.loads(self.rfile.read(int(self.headers["content-length"])))
            receipt = Receipt(self.headers["webhook-id"], event["event_type"], event["payload"]["booking_id"])
            receiver.delay(event)
            with lock:
                status = receiver.rule(event)
                receiver.calls.append((receipt, status))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_request(self, code: object = "-", size: object = "-") -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver = Receiver(f"http://127.0.0.1:{server.server_address[1]}/")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
