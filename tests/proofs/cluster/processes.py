"""Real processes, each started as an operator would start it, and all of them ended in the end."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from domain.runtime.settings import ROOT
from tests.proofs.grpc_client import GrpcClient
from tests.proofs.load import Client
from tests.support.grpc_process import ServedGrpc
from tests.support.waiting import wait_until

#: A process ends well within this time after SIGKILL.
REAP_SECONDS = 10.0


@dataclass(frozen=True)
class Process:
    """A program and all the processes that it has started, which are one group. Its output is in `log`."""

    name: str
    log: Path
    popen: subprocess.Popen[bytes]

    @classmethod
    def start(cls, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path) -> "Process":
        """Start a program of this repository in a group of its own."""
        with log.open("ab") as output:
            popen = subprocess.Popen(
                [str(ROOT / command[0]), *command[1:]],
                env={"PATH": os.environ["PATH"], **environment},
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        return cls(name, log, popen)

    def pids(self) -> set[int]:
        """Return the ids of all its processes."""
        try:
            children = psutil.Process(self.popen.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return set()
        return {self.popen.pid, *(child.pid for child in children)}

    def forks(self) -> set[int]:
        """Return the ids of the processes that the program has forked. Its script starts others before it is there."""
        try:
            program = psutil.Process(self.popen.pid)
            command = program.cmdline()
            # Only Python has -P. The script has the same arguments otherwise, and so have the shells that it starts.
            return {child.pid for child in program.children() if "-P" in command and _command(child) == command}
        except psutil.NoSuchProcess:
            return set()

    def forked(self, count: int, *, but: Collection[int] = ()) -> set[int]:
        """Return its forks as soon as there are that many, none of which is one of `but`."""

        def found() -> set[int] | None:
            assert self.is_running(), self.log.read_text()
            now = self.forks()
            return now if len(now) == count and not now & {*but} else None

        return wait_until(f"{self.name} has {count} processes, and not {but}", found)

    def is_running(self) -> bool:
        return self.popen.poll() is None

    def kill(self) -> None:
        """End the whole group at once, as a power cut would."""
        self.send(signal.SIGKILL)
        self.popen.wait(REAP_SECONDS)

    def kill_children(self) -> None:
        """End the processes that it has started, but not the process itself."""
        for child in psutil.Process(self.popen.pid).children(recursive=True):
            child.kill()

    def freeze(self) -> None:
        self.send(signal.SIGSTOP)

    def thaw(self) -> None:
        self.send(signal.SIGCONT)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the whole group, as a supervisor does."""
        if self.popen.returncode is not None and psutil.pid_exists(self.popen.pid):
            return  # The leader has ended, and the system has given its id to a process that is not ours.
        try:
            os.killpg(self.popen.pid, number)
        except ProcessLookupError:
            return

    def stop(self, *, within: float, whole_group: bool) -> float:
        """Send SIGTERM to the whole group, or to its leader alone. Return how many seconds the leader took to end."""
        began = time.monotonic()
        if whole_group:
            self.send(signal.SIGTERM)
        else:
            self.popen.terminate()
        self.popen.wait(within)
        return time.monotonic() - began

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the events of this name in the log, in order."""
        return [event for event in map(_parsed, self.log.read_text().splitlines()) if event.get("event") == name]


@dataclass(frozen=True)
class Api:
    """An API process and the port at which it listens."""

    port: int
    process: Process

    def is_ready(self) -> bool:
        with suppress(httpx.HTTPError):
            return httpx.get(f"http://127.0.0.1:{self.port}/health/ready", trust_env=False).is_success
        return False

    def ready(self) -> "Api":
        wait_until(f"the API serves at port {self.port}", lambda: self.is_ready() or not self.process.is_running())
        assert self.process.is_running(), self.process.log.read_text()
        return self

    def client(self) -> Client:
        return Client(self.port)


@dataclass(frozen=True)
class Grpc:
    """A gRPC process and the port at which it listens."""

    port: int
    process: Process

    def ready(self) -> "Grpc":
        served = ServedGrpc(self.process.popen, self.port, self.process.log)
        wait_until(f"gRPC is served at port {self.port}", served.answers)
        return self

    def client(self) -> GrpcClient:
        return GrpcClient(f"127.0.0.1:{self.port}")


def _parsed(line: str) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}


def kill(*processes: int) -> None:
    for process in processes:
        psutil.Process(process).kill()


def kill_until(program: Process, is_over: Callable[[], object], *, but: Collection[int] = ()) -> None:
    """Kill each process that a program has forked as soon as it is there, but for these, until something is so."""

    def killed() -> object:
        kill(*program.forks() - {*but})
        return is_over() or not program.is_running()

    wait_until("the processes that die are given up", killed)


def is_alive(process: int) -> bool:
    """Return whether there is such a process, and not one that has ended and that nobody has waited for."""
    try:
        return bool(psutil.Process(process).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _command(process: psutil.Process) -> Sequence[str]:
    """Return the command line of a process, which is empty if it has ended."""
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []
