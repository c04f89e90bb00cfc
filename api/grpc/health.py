"""The standard health service: it says whether reservations can be made and read.

The library has one as well. There, a client that watches and does not read would keep all others from an answer.
"""

import threading
from collections.abc import Callable, Iterator

import structlog
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from api import readiness
from api.grpc.calls import Call
from api.grpc.errors import UnknownService

SERVICE = "grpc.health.v1.Health"

#: What is seen of the database once nobody looks any more.
STOPPING = "stopping"

#: How often the database is looked at.
LOOK_SECONDS = 1.0

log = structlog.get_logger()


class Health:
    """The service. It looks at the database again and again, so its answers wait for nothing."""

    def __init__(self, look: Callable[[], str], of: str) -> None:
        """`look` returns `readiness.OK` or what is wrong, and `of` names the service that depends on it."""
        self._look = look
        self._names = ("", of)  # the server as a whole has the empty name
        self._seen: str | None = None
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="health", daemon=True)

    def start(self) -> None:
        """Look once, and from then on again and again."""
        self._see(self._look())
        self._thread.start()

    def close(self) -> None:
        """Say that nothing is served any more, and end the calls that watch."""
        self._closed.set()
        self._thread.join()
        self._seen = STOPPING
        self._wake()

    def check(self, _: Call, request: HealthCheckRequest) -> bytes:
        """Return the status of a service."""
        if request.service not in self._names:
            raise UnknownService(request.service)
        return self._status(request.service)

    def watch(self, call: Call, request: HealthCheckRequest) -> Iterator[bytes]:
        """Yield the status of a service, and again whenever it changes."""
        call.context.add_callback(self._wake)
        sent = b""
        while (status := self._changed_from(sent, request.service, call)) != sent:
            yield status
            sent = status

    def _changed_from(self, sent: bytes, name: str, call: Call) -> bytes:
        """Wait until a service has another status, or its call or the server ends. Return its status."""

        def is_over() -> bool:
            return self._seen == STOPPING or not call.context.is_active()

        with self._changed:
            self._changed.wait_for(lambda: self._status(name) != sent or is_over())
        return self._status(name)

    def _status(self, name: str) -> bytes:
        if name not in self._names:
            return _encoded(HealthCheckResponse.SERVICE_UNKNOWN)
        is_serving = self._seen == readiness.OK
        return _encoded(HealthCheckResponse.SERVING if is_serving else HealthCheckResponse.NOT_SERVING)

    def _run(self) -> None:
        while not self._closed.wait(LOOK_SECONDS):
            self._see(self._look())

    def _see(self, seen: str) -> None:
        if seen != self._seen and self._seen is not None:
            log.warning("health.changed", database=seen)
        self._seen = seen
        self._wake()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()


def _encoded(status: int) -> bytes:
    encoded: bytes = HealthCheckResponse(status=status).SerializeToString()
    return encoded
