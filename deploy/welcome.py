"""What `bin/up` shows when all is ready: what runs, where, and what to try."""

import os
import time
from collections.abc import Mapping

import httpx

from deploy.output import Output
from domain.runtime.settings import HOME, Settings

#: The API answers well within this time, or something is wrong.
READY_SECONDS = 60.0

#: How often it is asked whether it is ready, and for how long.
ASK_SECONDS = 0.1
TIMEOUT_SECONDS = 1.0

LATE = "\nHoldfast does not answer at {url} yet. The lines above say why.\n"


class Welcome:
    """Shows the welcome once, as soon as the API is ready."""

    def __init__(self, settings: Settings, given: Mapping[str, str], output: Output) -> None:
        self._url = _url(settings)
        self._text = _welcome(settings, given)
        self._output = output
        self._until = time.monotonic() + READY_SECONDS
        self._next = 0.0

    def look(self) -> None:
        """Ask whether the API is ready, if that is not known, and show the welcome then."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + ASK_SECONDS
        if self._is_ready():
            self._show(self._text)
        elif time.monotonic() > self._until:
            self._show(LATE.format(url=self._url))

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"{self._url}/health/ready", timeout=TIMEOUT_SECONDS, trust_env=False).is_success
        except httpx.HTTPError:
            return False

    def _show(self, text: str) -> None:
        self._output.show(text)
        self._next = float("inf")


def _welcome(settings: Settings, given: Mapping[str, str]) -> str:
    """Return what is running, where, and what to try."""
    broker = next((name for name in ("BROKER_URL", "REDIS_URL") if name in given), None)
    return WELCOME.format(
        url=_url(settings),
        grpc=_url(settings, settings.grpc_port).removeprefix("http://"),
        partners=f"http://127.0.0.1:{os.environ['PARTNERS_PORT']}",
        database="yours, at DATABASE_URL" if "DATABASE_URL" in given else f"in {HOME}, where the data is kept",
        broker=f"yours, at {broker}" if broker else f"in {HOME}; it carries wake-ups and keeps no data",
    )


def _url(settings: Settings, port: int | None = None) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{port or settings.port}"


WELCOME = """
Holdfast is running.

  API          {url}   the operations, to try in a browser: {url}/schema
  gRPC         {grpc}   the same reservations: docs/grpc.md
  worker       delivers events, confirms reservations, expires holds
  scheduler    wakes the worker by the clock
  partners     {partners}   a stand-in for the outside world: it confirms reservations,
               receives events and signs tokens. See what it has received: curl -s {partners}/received
  PostgreSQL   {database}
  Redis        {broker}

Get a token, reserve two of the demo rooms, then read the newest reservation: within a second PENDING has become
CONFIRMED.

  guest="Authorization: Bearer $(bin/token --role guest)"
  curl -s {url}/reservations -H "$guest" -H 'Content-Type: application/json' -H 'Idempotency-Key: first' \\
       -d '{{"sku": "ROOM-DOUBLE", "quantity": 2}}'
  curl -s "{url}/reservations?limit=1" -H "$guest"

In a second terminal, bin/doctor checks the data, and bin/why RESERVATION_ID shows where each event of a reservation is.

Ctrl-C stops everything and keeps the data.
"""
