"""The programs that `bin/up` runs: each in a session of its own, with its output in a pipe."""

import ctypes
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO

from honcho.environ import parse_procfile

from deploy.parts import Death
from domain.runtime.processes.restarts import cause
from domain.runtime.settings import ROOT
from domain.runtime.startup import WRONG_CONFIGURATION

#: What is read from a pipe at a time.
CHUNK_BYTES = 65_536

#: A line that is longer is printed in parts.
LINE_BYTES = 1_000_000

#: A call of Linux, by which the kernel sends a process a signal when the thread ends that has started it.
PR_SET_PDEATHSIG = 1

#: What the death of a program means.
LOST = {
    "web": "The HTTP API does not answer meanwhile; what it has committed is delivered.",
    "grpc": "gRPC is not answered meanwhile; what it has committed is delivered.",
    "worker": "Events wait meanwhile; none is lost.",
    "scheduler": "Retries and expiries may be late meanwhile.",
    "partners": "The stand-in has forgotten what it received; events to it wait meanwhile.",
}

_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class Program:
    """A command line, and the process that runs it now."""

    def __init__(self, name: str, command: str, environment: Mapping[str, str], reads: selectors.BaseSelector) -> None:
        """Its output is registered with `reads`: when there is some, call `read`."""
        self.name = name
        self.lost = LOST.get(name, "")
        self._command = command
        self._environment = environment
        self._reads = reads
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: IO[bytes] | None = None
        self._rest = b""

    def start(self) -> None:
        """Start it, after ending what an earlier process of it has left."""
        self.kill()
        self._close()
        self._process = subprocess.Popen(
            # Without `exec`, signals would go to a shell, which ends before the process that it has started.
            ["/bin/sh", "-c", f"exec {self._command}"],
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # There is no other thread that could hold a lock while this one forks.
            preexec_fn=_end_with_parent,  # noqa: PLW1509
        )
        self._pipe = self._process.stdout
        assert self._pipe
        self._reads.register(self._pipe, selectors.EVENT_READ, self)

    def read(self) -> list[bytes]:
        """Return the whole lines that it has written since. It has written something, or closed its output."""
        assert self._pipe
        chunk = os.read(self._pipe.fileno(), CHUNK_BYTES)
        if not chunk:
            self._close()
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if self._rest and (not chunk or len(self._rest) > LINE_BYTES):
            lines, self._rest = [*lines, self._rest], b""
        return lines

    def death(self) -> Death | None:
        """Return what ended its process, or None while that runs."""
        code = self._process.poll() if self._process else None
        return None if code is None else Death(cause(code), is_final=code == WRONG_CONFIGURATION)

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def terminate(self) -> None:
        if self._process and self.is_running:
            self._process.terminate()

    def kill(self) -> None:
        """End all that is left of it at once, the processes that it has started included."""
        if self._process:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _close(self) -> None:
        """Read no more of its output."""
        if self._pipe:
            self._reads.unregister(self._pipe)
            self._pipe.close()
            self._pipe = None


def programs(environment: Mapping[str, str], reads: selectors.BaseSelector) -> Sequence[Program]:
    """Return the programs of the Procfile that run all the time, and the stand-in for the outside world."""
    commands = dict(parse_procfile((ROOT / "Procfile").read_text()).processes)
    del commands["release"]
    commands["partners"] = f"bin/python -m examples.partners.app --port {environment['PARTNERS_PORT']}"
    return [Program(name, command, environment, reads) for name, command in commands.items()]


def _end_with_parent() -> None:
    """Let the kernel end this process when `bin/up` is killed, which can't end it any more. Only Linux can do that."""
    if _libc:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
