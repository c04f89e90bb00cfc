"""The API as its clients see it: the server in processes of its own, called over a socket."""

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import httpx
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from domain.runtime.settings import HOME, ROOT

#: A condition that is not true within this time will never be.
PATIENCE_SECONDS = 20.0

#: The pause between two checks of a condition.
CHECK_EVERY_SECONDS = 0.01

#: Linux gives ports from 32768 on to outgoing connections.
PORTS = range(15_000, 32_768)

_dice = random.SystemRandom()

T = TypeVar("T")


@dataclass
class Served:
    """A running API, a client of it, and its log."""

    process: subprocess.Popen[bytes]
    client: httpx.Client
    log: Path
    _read_to: int = field(default=0)

    @property
    def url(self) -> str:
        return str(self.client.base_url)

    def logged(self) -> str:
        """Return what it has logged since the last call."""
        text = self.log.read_text()
        new, self._read_to = text[self._read_to :], len(text)
        return new

    def faults(self) -> list[str]:
        """Return what it has logged as its own faults since the last call."""
        return [line for line in self.logged().splitlines() if '"level": "error"' in line or "Traceback" in line]


@contextmanager
def serving(**environment: str) -> Iterator[Served]:
    """Serve the API with the settings of the tests and these variables, until the block ends."""
    port = free_port()
    log = HOME / f"api-{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [ROOT / "bin" / "api"],
            env=os.environ | {"PORT": str(port)} | environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_SECONDS, trust_env=False) as client:
            wait_until("the API is ready", lambda: _is_ready(process, client, log))
            yield Served(process, client, log)
    finally:
        _stop(process)


def free_port() -> int:
    """Return a port that nobody listens on, for a process that is started soon.

    No outgoing connection takes it meanwhile. Test workers that run at the same time choose at random, so they
    hardly ever choose the same port.
    """
    while True:
        port = _dice.choice(PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _is_ready(process: subprocess.Popen[bytes], client: httpx.Client, log: Path) -> bool:
    assert process.poll() is None, log.read_text()
    with suppress(httpx.TransportError):
        return client.get("/health/ready").is_success
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(PATIENCE_SECONDS)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def wait_until(what: str, holds: Callable[[], T | None]) -> T:
    """Return what `holds` returns as soon as that is true. Fails after PATIENCE_SECONDS; `what` is for its message."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := holds()):
        assert time.monotonic() < deadline, f"Not within {PATIENCE_SECONDS:.0f} s: {what}."
        time.sleep(CHECK_EVERY_SECONDS)
    return found


def wait_until_blocked(db: sessionmaker[Session], connections: int = 1) -> None:
    """Wait until this many connections to this database, or more, wait for a lock."""
    blocked = text(
        "SELECT count(*) >= :connections FROM pg_stat_activity"
        " WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )

    def are_blocked() -> bool:
        with db.begin() as session:
            return bool(session.execute(blocked, {"connections": connections}).scalar_one())

    wait_until(f"{connections} wait for a lock", are_blocked)
