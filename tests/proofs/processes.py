"""Real processes: each started as a person would start it, and none left behind."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from domain.runtime.settings import ROOT

#: A process that has not ended by then after SIGKILL is not ours to end.
REAP_SECONDS = 10.0


def free_port() -> int:
    """Return a port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True)
class Process:
    """A program, with all the processes that it has started: they are one group. Its output is in `log`."""

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

    def is_running(self) -> bool:
        return self.popen.poll() is None

    def kill(self) -> None:
        """End it as a power cut would, with all that it has started."""
        self.send(signal.SIGKILL)
        self.popen.wait(REAP_SECONDS)

    def kill_children(self) -> None:
        """End what it has started, and leave the process itself alone."""
        for child in psutil.Process(self.popen.pid).children(recursive=True):
            child.kill()

    def freeze(self) -> None:
        self.send(signal.SIGSTOP)

    def thaw(self) -> None:
        self.send(signal.SIGCONT)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the whole group, as a supervisor does."""
        try:
            os.killpg(self.popen.pid, number)
        except ProcessLookupError:
            return

    def stop(self, *, within: float, whole_group: bool) -> float:
        """Send SIGTERM, to the group or to its leader alone. Return how many seconds it took to end."""
        began = time.monotonic()
        if whole_group:
            self.send(signal.SIGTERM)
        else:
            self.popen.terminate()
        self.popen.wait(within)
        return time.monotonic() - began

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the log events of that name, in order."""
        return [event for event in map(_parsed, self.log.read_text().splitlines()) if event.get("event") == name]


def _parsed(line: str) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}
