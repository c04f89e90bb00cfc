"""The process that serves gRPC."""

import faulthandler
import gc
import os
import signal
import sys
from functools import partial

import rich_click as click
import structlog

from api.grpc.server import Server
from api.ports import require_free
from domain.fulfilment import load_routes
from domain.outbox.operations.routes_check import RoutesCheck
from domain.runtime import logs, metrics, startup
from domain.runtime.errors import ConfigurationError
from domain.runtime.settings import Settings

HELP = """Serve reservations over gRPC until SIGTERM, then answer the calls in flight and exit.

The settings are environment variables. DATABASE_URL is required. Of the others, these belong to the server:

\b
  HOST                     the IP address to listen at (default 127.0.0.1)
  GRPC_PORT                the port to listen at (default 50051)
  GRPC_REGISTER_RESOURCES  whether unknown resources are registered (default true)
  GRPC_METRICS_PORT        the port of its metrics, 0 for none (default 9193)

\b
Exit codes:
  0  stopped by SIGTERM or Ctrl-C
  1  the same, but something did not end in time; the log says what
  2  a setting, the routes file or an option can't be used

\b
Example:
  HOST=0.0.0.0 GRPC_PORT=50052 bin/grpc
"""

#: How long a thread keeps the processor while others want it: see api/main.
SWITCH_SECONDS = 0.0005

#: A process that has not stopped within this time shows where its threads are, and ends: every process of Holdfast ends
#: within 10 s of SIGTERM.
STOP_SECONDS = 9.0

STOPPING = frozenset({signal.SIGTERM, signal.SIGINT})

log = structlog.get_logger()


@click.command(help=HELP)
@click.version_option(package_name="holdfast", prog_name="Holdfast")
def main() -> None:
    """Check the configuration, then serve. Raises ConfigurationError, also one that is found while it serves."""
    # Blocked in every thread, those of gRPC included, and taken by this one. A handler would not be called while this
    # thread waits, if the system interrupted another one.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    settings = Settings.load()
    logs.configure(settings.log_level)
    sys.setswitchinterval(SWITCH_SECONDS)
    require_free(settings.host, settings.grpc_port, "GRPC_PORT")
    routes = load_routes(settings)
    wrong: list[ConfigurationError] = []
    check = RoutesCheck(settings, routes, stop=lambda error: _stop(wrong, error))
    check.begin()
    server = Server(settings, routes, check)
    server.start()
    _serve_metrics(settings)
    # All of this lives as long as the process. To search it for garbage would stop every call for 100 ms, each second
    # or two.
    gc.collect()
    gc.freeze()
    signal.sigwait(STOPPING)
    faulthandler.dump_traceback_later(STOP_SECONDS, exit=True)
    server.stop()
    if wrong:
        raise wrong[0]


def _stop(wrong: list[ConfigurationError], error: ConfigurationError) -> None:
    """Have this process stop, because of that error."""
    wrong.append(error)
    os.kill(os.getpid(), signal.SIGTERM)


def _serve_metrics(settings: Settings) -> None:
    """Serve what this process counts. Without a free port for that, calls are answered all the same."""
    if not settings.grpc_metrics_port:
        return
    try:
        metrics.serve(metrics.registry_of(), settings.host, settings.grpc_metrics_port)
    except OSError as error:
        advice = "everything else works; set GRPC_METRICS_PORT to a free port, or to 0 for none"
        log.warning("metrics.not_served", port=settings.grpc_metrics_port, reason=error.strerror, advice=advice)


if __name__ == "__main__":
    startup.run(partial(main, prog_name="bin/grpc"))
