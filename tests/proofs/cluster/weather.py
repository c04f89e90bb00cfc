"""Partners in bad weather: each is a real HTTP server that misbehaves in one way, until the weather is fair."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random

#: How long a partner that hangs keeps a call, unless the weather becomes fair before: longer than the time-out.
HANGING_SECONDS = 30.0

#: How often one that drips sends a byte.
DRIP_SECONDS = 0.2

#: How long each kind of weather lasts where it changes.
CHANGE_SECONDS = 2.0

#: How many calls a second are taken where the others are shed.
CAPACITY = 6


@dataclass
class Call:
    """An event that arrived, and its aggregate. `status` is what it was answered, and 0 if it was not answered."""

    event_id: str
    aggregate_id: str
    at: float
    status: int = 0


@dataclass
class Partner:
    """One partner. `is_fair` ends the bad weather."""

    name: str
    behave: "Behaviour"
    url: str = ""
    is_fair: threading.Event = field(default_factory=threading.Event)
    calls: list[Call] = field(default_factory=list)
    #: Guards `calls`.
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self) -> Counter[int]:
        """Return how many calls were answered with which status."""
        return Counter(call.status for call in list(self.calls))

    def taken(self) -> list[Call]:
        """Return the calls whose event was taken, each event once, in the order in which they were first taken."""
        first = {call.event_id: call for call in reversed(list(self.calls)) if 200 <= call.status < 300}
        return sorted(first.values(), key=lambda call: call.at)


#: Decides what a partner answers: a status, or None to end the connection. It may take its time.
Behaviour = Callable[[Partner, Call], int | None]


def healthy(_: Partner, __: Call) -> int:
    return 204


def sheds(partner: Partner, _: Call) -> int:
    """Take so many calls a second, and answer the others with 503."""
    with partner.lock:
        recent = [call for call in partner.calls[-500:] if call.status == 204 and call.at > time.monotonic() - 1]
    return 204 if len(recent) < CAPACITY else 503


def flaps(_: Partner, call: Call) -> int:
    """Work for two seconds, and be down for two."""
    return 204 if int(call.at / CHANGE_SECONDS) % 2 else 502


def hangs(partner: Partner, _: Call) -> int | None:
    partner.is_fair.wait(HANGING_SECONDS)
    return None


def hangs_on_one(partner: Partner, call: Call) -> int | None:
    """Never answer for one aggregate in eight, and answer for the others at once."""
    return hangs(partner, call) if is_one_in(8, call) else 204


def is_slow(partner: Partner, _: Call) -> int:
    partner.is_fair.wait(1.0)
    return 204


def fails_for_some(_: Partner, call: Call) -> int:
    return 500 if is_one_in(40, call) else 204


def throttles_one(_: Partner, call: Call) -> int:
    return 429 if is_one_in(40, call) else 204


def is_gone_for_one(_: Partner, call: Call) -> int:
    return 410 if is_one_in(40, call) else 204


def locks_out(partner: Partner, call: Call) -> int:
    """Refuse everybody now and then, as after a change of a password."""
    return 401 if int(call.at / (2 * CHANGE_SECONDS)) % 2 else 204


def hangs_up(_: Partner, call: Call) -> int | None:
    """Close the connection without an answer, now and then for everybody."""
    return None if int(call.at / CHANGE_SECONDS) % 2 else 204


class Changing:
    """Random weather: every few seconds another one of these."""

    def __init__(self, seed: int) -> None:
        self._behaviours = [healthy, sheds, flaps, is_slow, locks_out, hangs_up, hangs]
        self._dice = Random(seed)
        self._order: list[Behaviour] = []

    def __call__(self, partner: Partner, call: Call) -> int | None:
        spell = int(call.at / CHANGE_SECONDS)
        with partner.lock:
            while len(self._order) <= spell % 100:
                self._order.append(self._dice.choice(self._behaviours))
        return self._order[spell % 100](partner, call)


def is_one_in(number: int, call: Call) -> bool:
    """Whether an aggregate belongs to a fixed share of all, which is one in so many."""
    return int(call.aggregate_id.replace("-", ""), 16) // 32 % number == 0


@contextmanager
def partners(behaviours: Mapping[str, Behaviour]) -> Iterator[Mapping[str, Partner]]:
    """Start a server for each, by the name of the partner."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(_serving(Partner(name, behave))) for name, behave in behaviours.items()}


@contextmanager
def _serving(partner: Partner) -> Iterator[Partner]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = HANGING_SECONDS

        def do_POST(self) -> None:
            event = json.loads(self.rfile.read(int(self.headers["content-length"])))
            call = Call(self.headers["webhook-id"], event["payload"]["booking_id"], time.monotonic())
            status = 204 if partner.is_fair.is_set() else partner.behave(partner, call)
            call.status = status or 0
            with partner.lock:
                partner.calls.append(call)
            if status is None:
                self.close_connection = True
                return
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_request(self, code: object = "-", size: object = "-") -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients hang up on purpose
    partner.url = f"http://127.0.0.1:{server.server_port}/"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield partner
    finally:
        partner.is_fair.set()
        server.shutdown()
        thread.join()
        server.server_close()
