"""The API as its clients see it: the server in processes of its own, called over a socket."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from domain.runtime.settings import HOME, ROOT
from tests.support.ports import free_port
from tests.support.waiting import PATIENCE_SECONDS, wait_until


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

    @property
    def port(self) -> int:
        port = self.client.base_url.port
        assert port is not None
        return port

    def logged(self) -> str:
        """Return what it has logged since the last call."""
        text = self.log.read_text()
        new, self._read_to = text[self._read_to :], len(text)
        return new

    def faults(self) -> list[str]:
        """Return what it has logged as its own faults since the last call."""
        return [line for line in self.logged().splitlines() if '"level": "error"' in line or "Traceback" in line]


@contextmanager
def serving(files: str = "", **environment: str) -> Iterator[Served]:
    """Serve the API with the settings of the tests and these variables, until the block ends.

    `files` is how many it may open, if not as many as this process.
    """
    port = free_port()
    log = HOME / f"api-{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command(ROOT / "bin" / "api", files),
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


def command(program: Path, files: str) -> list[str]:
    """Return what starts a program, which may open so many files if that says a number."""
    return ["sh", "-c", f'ulimit -n {files} && exec "$0"', str(program)] if files else [str(program)]


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
