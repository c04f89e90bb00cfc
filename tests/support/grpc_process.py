"""The gRPC service as its clients see it: the server in a process of its own, called over a socket."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from api.grpc.proto.reservation_pb2_grpc import ReservationServiceStub
from domain.runtime.settings import HOME, ROOT
from tests.support.api_process import command
from tests.support.ports import free_port
from tests.support.waiting import PATIENCE_SECONDS, wait_until


@dataclass
class ServedGrpc:
    """A running server, and its log."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    _read_to: int = field(default=0)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @contextmanager
    def calling(self) -> Iterator[ReservationServiceStub]:
        """Connect to the server. Each block has a connection of its own."""
        with grpc.insecure_channel(self.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            yield ReservationServiceStub(channel)

    def health(self, service: str = "") -> int:
        """Return the status of a service, as the health service says."""
        with grpc.insecure_channel(self.address) as channel:
            check = channel.unary_unary(
                "/grpc.health.v1.Health/Check",
                HealthCheckRequest.SerializeToString,
                HealthCheckResponse.FromString,
            )
            status: int = check(HealthCheckRequest(service=service), timeout=PATIENCE_SECONDS).status
            return status

    def answers(self) -> bool:
        """Return whether it answers yet. The process must be running."""
        assert self.process.poll() is None, self.log.read_text()
        with suppress(grpc.RpcError):
            return bool(self.health())
        return False

    def faults(self) -> list[str]:
        """Return what it has logged as its own faults since the last call."""
        text = self.log.read_text()
        new, self._read_to = text[self._read_to :], len(text)
        return [line for line in new.splitlines() if '"level": "error"' in line or "Traceback" in line]


@contextmanager
def serving_grpc(files: str = "", **environment: str) -> Iterator[ServedGrpc]:
    """Serve gRPC with the settings of the tests and these variables, until the block ends.

    `files` is how many it may open, if not as many as this process.
    """
    port = free_port()
    log = HOME / f"grpc-{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command(ROOT / "bin" / "grpc", files),
            env=os.environ | {"GRPC_PORT": str(port), "GRPC_METRICS_PORT": "0"} | environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    served = ServedGrpc(process, port, log)
    try:
        wait_until("the gRPC service answers", served.answers)
        yield served
    finally:
        _stop(process, log)


def _stop(process: subprocess.Popen[bytes], log: Path) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        code = process.wait(PATIENCE_SECONDS)
        assert code == 0, log.read_text()[-8_000:]
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
