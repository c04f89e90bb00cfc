"""bin/up starts again what dies and says so, and leaves nothing behind when it ends."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import psutil
import pytest

from deploy.embedded import RedisServer
from domain.runtime.settings import ROOT
from tests.support.commands import bare, run_bare
from tests.support.ports import free_port
from tests.support.waiting import PATIENCE_SECONDS, wait_until

pytestmark = pytest.mark.slow

PORTS = (
    *("PORT", "PARTNERS_PORT", "GRPC_PORT"),
    *("GRPC_METRICS_PORT", "WORKER_METRICS_PORT", "SCHEDULER_METRICS_PORT"),
)

#: Every program ends within 10 s of SIGTERM, and the servers soon after.
GONE_WITHIN_SECONDS = 20.0


class Up:
    """A `bin/up` on servers and ports of its own. What it prints is in `output`."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.ports = {name: str(free_port()) for name in PORTS}
        self.url = f"http://127.0.0.1:{self.ports['PORT']}"
        self.log = home / "output"
        self._pipe, output = os.pipe()
        self.popen = subprocess.Popen(
            [ROOT / "bin" / "python", "-m", "deploy.up"],
            env=bare({"HOLDFAST_HOME": str(home)} | self.ports),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        os.close(output)
        os.set_blocking(self._pipe, False)
        self._said = b""

    def said(self) -> str:
        try:
            while chunk := os.read(self._pipe, 65_536):
                self._said += chunk
        except BlockingIOError:
            pass
        return self._said.decode()

    def wait_for(self, text: str) -> None:
        wait_until(f"it says {text}", lambda: text in self.said() or self.popen.poll() is not None)
        assert text in self.said()

    def process_of(self, words: str) -> psutil.Process:
        """Return the process that it has started with these words in its command line."""
        children = psutil.Process(self.popen.pid).children()
        (found,) = [child for child in children if words in " ".join(child.cmdline())]
        return found

    def everything(self) -> list[psutil.Process]:
        """Return all processes that it has started, PostgreSQL included."""
        postgresql = int((self.home / "postgresql" / "postmaster.pid").read_text().split()[0])
        return [*psutil.Process(self.popen.pid).children(recursive=True), psutil.Process(postgresql)]

    def is_ready(self) -> bool:
        try:
            answer = httpx.get(f"{self.url}/health/ready", trust_env=False).json()
            return {answer["status"], answer["database"], answer["broker"]} == {"ok"}
        except (httpx.HTTPError, KeyError):
            return False

    def reserve_until_confirmed(self) -> None:
        """Reserve, and wait until the worker has asked the stand-in about it."""
        token = run_bare("token", "--role", "guest", HOLDFAST_HOME=str(self.home)).stdout.strip()
        headers = {"Authorization": f"Bearer {token}"}
        with httpx.Client(base_url=self.url, headers=headers, trust_env=False) as client:
            made = client.post("/reservations", json={"sku": "ROOM-DOUBLE", "quantity": 1})
            location = made.raise_for_status().headers["Location"]
            wait_until("it is confirmed", lambda: client.get(location).json()["status"] == "CONFIRMED")

    def close_output(self) -> None:
        os.close(self._pipe)

    def kill(self) -> None:
        """End all that is left, however the test ended."""
        if self.popen.poll() is None:
            self.popen.terminate()
            self.popen.wait(PATIENCE_SECONDS)


@pytest.fixture
def up() -> Iterator[Up]:
    # PostgreSQL, which runs as another user, can't reach its files in a folder of pytest's.
    home = Path(tempfile.mkdtemp(prefix="up-"))
    up = Up(home)
    try:
        up.wait_for("Holdfast is running.")
        yield up
    finally:
        up.kill()
        shutil.rmtree(home, ignore_errors=True)


def have_ended(processes: list[psutil.Process]) -> bool:
    return not [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def test_what_dies_is_back_and_that_is_said(up: Up) -> None:
    for name, words in (("worker", "worker.main"), ("web", "api.main"), ("redis", "redis-server")):
        up.process_of(words).kill()
        up.wait_for(f"{name} has died (")
    up.everything()[-1].kill()
    up.wait_for("postgresql has died (")

    wait_until("the API is ready", up.is_ready)
    up.reserve_until_confirmed()
    assert "Traceback" not in up.said()

    everything = up.everything()
    up.popen.send_signal(signal.SIGINT)
    assert up.popen.wait(GONE_WITHIN_SECONDS) == 0
    wait_until("all have ended", lambda: have_ended(everything))


def test_a_closed_terminal_ends_everything_even_while_postgresql_is_dead(up: Up) -> None:
    everything = up.everything()
    everything[-1].kill()
    up.close_output()
    up.popen.send_signal(signal.SIGHUP)

    assert up.popen.wait(GONE_WITHIN_SECONDS) == 0
    wait_until("all have ended", lambda: have_ended(everything))


def test_an_output_that_nobody_can_read_any_more_ends_everything(up: Up) -> None:
    everything = up.everything()
    up.close_output()
    up.process_of("worker.scheduler").kill()  # that is said

    assert up.popen.wait(GONE_WITHIN_SECONDS) == 1
    wait_until("all have ended", lambda: have_ended(everything))


def test_the_programs_end_with_a_bin_up_that_was_killed_and_the_next_one_starts(up: Up) -> None:
    programs = [one for one in up.everything() if "postgres" not in one.name() and "redis" not in one.name()]

    up.popen.kill()

    wait_until("the programs have ended", lambda: have_ended(programs), within=GONE_WITHIN_SECONDS)
    again = Up(up.home)
    again.wait_for("Holdfast is running.")
    again.kill()


def test_a_port_that_is_taken_is_reported_with_who_has_it(tmp_path: Path) -> None:
    with ExitStack() as stack:
        taken = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = taken.getsockname()[1]
        run = run_bare("python", "-m", "deploy.up", PORT=str(port), HOLDFAST_HOME=str(tmp_path))

    assert run.returncode == 2
    assert f"PORT: {port} can't be used" in run.stderr
    assert f"It is used by process {os.getpid()} ({psutil.Process().name()})." in run.stderr


def test_a_redis_that_has_died_can_be_stopped() -> None:
    home = Path(tempfile.mkdtemp(prefix="up-"))
    redis = RedisServer(home)
    try:
        assert redis.runs()
        assert redis._process
        redis._process.kill()
        redis._process.wait()
        assert not redis.runs()
    finally:
        redis.stop()
        shutil.rmtree(home)
