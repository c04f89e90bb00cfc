"""The outside services of bookings over real connections, with faults that a test chooses for each call."""

import json
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from itertools import chain, repeat
from typing import Any

import msgspec

from domain.bookings.saga import Step
from examples.partners.confirmations import ConfirmationRequest, Confirmations
from examples.partners.services import Entry, Inventory, Payment, Pricing, Service, ServiceRequest
from tests.support.http_server import Server, a_server, saying

STATUSES = {"broken": 500, "down": 503, "denied": 409}


@dataclass
class PartnerServices:
    """Inventory, pricing, payment and confirmation. `faults` are the answers to calls, by the type of the event."""

    server: Server
    books: dict[str, Service] = field(
        default_factory=lambda: {"inventory": Inventory(), "pricing": Pricing(), "payment": Payment()}
    )
    confirmations: Confirmations = field(default_factory=Confirmations)
    #: What happens while a service is asked, before it answers. It gets the type of the event.
    meanwhile: Callable[[str], None] = lambda _: None
    #: Those who hang are let go at the end.
    ended: threading.Event = field(default_factory=threading.Event)
    _faults: dict[str, Iterator[str]] = field(default_factory=lambda: defaultdict(lambda: repeat("ok")))
    _of_one: dict[tuple[str, str], str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.server.answer = self._answer

    def url(self, step: Step) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/{step.value}"

    def has(self, event_type: str, *faults: str, ever: str = "ok") -> None:
        """Answer the next calls for events of this type with these faults, and all later ones with `ever`."""
        self._faults[event_type] = chain(faults, repeat(ever))

    def has_for(self, booking_id: object, event_type: str, fault: str) -> None:
        """Answer all calls for such events of one booking with this fault."""
        self._of_one[event_type, str(booking_id)] = fault

    def asked(self) -> list[str]:
        """Return the types of the events that were sent, in order."""
        return [json.loads(request.body)["event_type"] for request in self.server.requests]

    def keys(self, event_type: str) -> set[str]:
        """Return the idempotency keys under which events of this type were sent."""
        return {
            request.headers["idempotency-key"]
            for request in self.server.requests
            if json.loads(request.body)["event_type"] == event_type
        }

    def entry(self, name: str, booking_id: object) -> Entry | None:
        """Return what a service did for a booking."""
        return self.books[name].books.get(str(booking_id))

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        request = self.server.requests[-1]
        body = json.loads(request.body)
        with self._lock:
            of_one = self._of_one.get((body["event_type"], body["payload"]["booking_id"]))
            fault = of_one or next(self._faults[body["event_type"]])
        self.meanwhile(body["event_type"])
        if fault == "hangs":
            self.ended.wait()
            return
        if fault in STATUSES:
            saying(STATUSES[fault])(handler)
            return
        status, answer = self._acted(handler.path.strip("/"), request.headers["idempotency-key"], request.body, fault)
        if fault == "late":
            self.ended.wait()
        saying(status, b"<p>yes" if fault == "nonsense" else msgspec.json.encode(answer))(handler)

    def _acted(self, name: str, key: str, body: bytes, fault: str) -> tuple[int, Any]:
        refuse = [json.loads(body)["payload"]["sku"]] if fault == "refused" else []
        with self._lock:
            if name == "confirmation":
                asked = msgspec.json.decode(body, type=ConfirmationRequest)
                response = self.confirmations.respond(key, asked, refuse_skus=refuse)
                return (422 if response.reason else 200), response
            return self.books[name].respond(key, msgspec.json.decode(body, type=ServiceRequest), refuse_skus=refuse)


@contextmanager
def partner_services() -> Iterator[PartnerServices]:
    with a_server() as server:
        services = PartnerServices(server)
        try:
            yield services
        finally:
            services.ended.set()
