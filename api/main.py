"""The process that serves the API."""

import socket
from contextlib import nullcontext
from errno import EADDRNOTAVAIL
from socket import AF_INET, AF_INET6

from granian.constants import Interfaces
from granian.log import LogLevels
from granian.server import Server

from domain.outbox import routes_file
from domain.runtime import telemetry
from domain.runtime.settings import Settings, refuse_to_start


def main() -> None:
    """Serve until SIGTERM, then finish what is in hand."""
    settings = Settings.load()
    insist_on_free(settings.host, settings.port)
    # Here as well, as what ends a process that serves only has it started again.
    telemetry.insist_on_tracing()
    routes_file.load(settings)
    server = Server(
        # By its name: nothing may import the library of metrics before it is known where they add up.
        "api.app:create_app",
        factory=True,
        interface=Interfaces.ASGI,
        address=settings.host,
        port=settings.port,
        workers=settings.web_processes,
        log_level=LogLevels.warning,
        respawn_failed_workers=True,
        workers_kill_timeout=10,
    )
    with telemetry.sharing_metrics() if settings.web_processes > 1 else nullcontext():
        server.serve()


def insist_on_free(host: str, port: int) -> None:
    """End the process if it can't listen there, or if something else does: the server would share the port."""
    with socket.socket(AF_INET6 if ":" in host else AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == EADDRNOTAVAIL:
                refuse_to_start(f"HOST: {host} is no address of this machine.")
            refuse_to_start(f"PORT: {port} can't be used ({error.strerror}). Stop what uses it, or choose another.")


if __name__ == "__main__":
    main()
