"""The partners of a proof, which are those of `examples/partners`, and all events that they received."""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx

from tests.proofs.cluster.processes import Process
from tests.support.waiting import wait_until


@dataclass(frozen=True)
class Receipt:
    """An event that was received, at its first receipt."""

    event_id: str
    type: str
    booking_id: str


@dataclass(frozen=True)
class Received:
    """Every event that was received, in order of first receipt, and how many were received again."""

    events: Sequence[Receipt] = ()
    repeats: int = 0


def received_in(bodies: Iterable[str]) -> Received:
    """Return what was received, given the bodies of all messages in the format `envelope`, in their order."""
    events = map(json.loads, bodies)
    got = [Receipt(event["event_id"], event["event_type"], event["payload"]["booking_id"]) for event in events]
    return Received(list(dict.fromkeys(got)), len(got) - len(set(got)))


class Listener(Protocol):
    """A receiver of events that remembers them."""

    def received(self) -> Received: ...


@dataclass
class Partners:
    """A confirmation service and a webhook receiver. This keeps what they received when their process is stopped."""

    port: int
    process: Process | None = None
    _received: Received = field(default_factory=Received)
    _bookings: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30, trust_env=False)

    def ready(self) -> None:
        wait_until("the partners answer", self._is_ready)

    def _is_ready(self) -> bool:
        with suppress(httpx.HTTPError):
            return self._client.get("/knobs").is_success
        return False

    def set_knobs(self, **knobs: object) -> None:
        """Set these knobs, and all others to their defaults."""
        self._client.put("/knobs", json=knobs).raise_for_status()

    def stop(self) -> None:
        """End the process, so that connections are refused. What it has received is kept here."""
        # In an outage it takes nothing more, so no event is received after this has read what was.
        self.set_knobs(outage=True)
        self._received, self._bookings = self.received(), self.bookings()
        assert self.process is not None
        self.process.kill()

    def received(self) -> Received:
        """Return what the webhook receiver got since its first start."""
        page = self._client.get("/received").json()
        assert page["forgotten"] == 0, "The receiver has forgotten the oldest events: the proof is too large for it."
        seen = {receipt.event_id: receipt for receipt in self._received.events}
        repeats = self._received.repeats + page["repeats"]
        for event in page["events"]:
            repeats += event["id"] in seen
            seen.setdefault(event["id"], _receipt(event))
        return Received(list(seen.values()), repeats)

    def bookings(self) -> dict[str, str]:
        """Return the status of each booking at the confirmation service."""
        bookings: dict[str, str] = self._client.get("/confirmations").json()["bookings"]
        return self._bookings | bookings

    def books(self) -> Mapping[str, Mapping[str, Any]]:
        """Return what each service did for each booking."""
        books = self._client.get("/books").json()
        return {name: one["bookings"] for name, one in books.items()}

    def clear(self) -> None:
        """Have the process forget all that it has received."""
        self._client.delete("/received").raise_for_status()

    def close(self) -> None:
        self._client.close()


def _receipt(event: Mapping[str, Any]) -> Receipt:
    return Receipt(event["id"], event["type"], event["booking_id"])
