"""The process that serves the API."""

import gc
import sys
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING

import rich_click as click
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels

from api.auth.limits.rates import Rates
from api.ports import allow_connections, require_free
from api.process import stop
from api.processes import Server
from domain.fulfilment import load_routes
from domain.outbox.operations.routes_check import require_if_reachable
from domain.runtime import logs, shared_metrics, startup, tracing
from domain.runtime.errors import ConfigurationError
from domain.runtime.settings import Settings

if TYPE_CHECKING:
    from api.http.asgi import Application

HELP = """Serve the HTTP API until SIGTERM, then answer the requests in flight and exit.

A process that dies is started again.

The settings are environment variables. DATABASE_URL is required. Of the others, these belong to the server:

\b
  HOST             the IP address to listen at (default 127.0.0.1)
  PORT             the port to listen at (default 8000)
  WEB_CONCURRENCY  the number of processes (default 1)

\b
Exit codes:
  0  stopped by SIGTERM, SIGHUP or Ctrl-C
  1  a process of the server crashed repeatedly, and no other one serves
  2  a setting, the routes file or an option can't be used

\b
Example:
  HOST=0.0.0.0 PORT=8080 WEB_CONCURRENCY=2 bin/api
"""

#: The requests that a process serves at a time. Further ones are answered 503.
MOST_REQUESTS = 4_096

#: The connections that a process of the server may have, idle ones included.
MOST_CONNECTIONS = 16_000

#: A connection that was used, and has sent no whole request head for this time since, in seconds, is closed. It is more
#: than most clients and gateways keep a connection that they do not use: one that is closed in the moment in which a
#: request is sent breaks that request. One that was never used is ended sooner: see api/connections.
HEADER_SECONDS = 20

#: What a connection may keep in memory of a request before a handler runs. A larger head is refused.
MOST_HEAD_BYTES = 16_384

#: The connections that wait in the system until the server accepts them.
BACKLOG = 4_096

#: How long a thread keeps the processor while others want it. The default is ten times as long: a writer that computes
#: would delay the other one, and the event loop, by that time at each of their steps.
SWITCH_SECONDS = 0.0005


@click.command(help=HELP)
@click.version_option(package_name="holdfast", prog_name="Holdfast")
def main() -> None:
    """Check the configuration, then serve. Raises ConfigurationError."""
    settings = Settings.load()
    logs.lose_what_can_not_be_written()
    logs.configure(settings.log_level)
    require_free(settings.host, settings.port)
    Rates.of(settings)
    connections = connections_for(settings)
    # The processes of the server need these as well. They are checked here, before anything is served.
    tracing.require()
    require_if_reachable(settings, load_routes(settings))
    server = Server(
        # By its name: nothing may import `domain.runtime.metrics` before `shared_metrics.share()`.
        "api.main:load_app",
        factory=True,
        interface=Interfaces.ASGI,
        # HTTP/2 in clear text is for proxies that are set up for it, and it was not tested.
        http=HTTPModes.http1,
        websockets=False,
        http1_settings=HTTP1Settings(header_read_timeout=HEADER_SECONDS * 1_000, max_buffer_size=MOST_HEAD_BYTES),
        backlog=BACKLOG,
        # The server's own limit is one of connections, the idle ones included: beyond it, nobody is answered.
        backpressure=connections,
        address=settings.host,
        port=settings.port,
        workers=settings.web_processes,
        log_level=LogLevels.warning,
    )
    with shared_metrics.share() if settings.web_processes > 1 else nullcontext():
        server.serve()
    sys.exit(server.exit_code)


def connections_for(settings: Settings) -> int:
    """Return how many connections a process may have open, and let it open as many files. Raises ConfigurationError.

    Idle connections count as well, so there are twice as many as requests at a time, and room for the queue of
    reservations among these.
    """
    connections = allow_connections(MOST_CONNECTIONS)
    if min(MOST_REQUESTS, connections // 2) < settings.queue_limit:
        raise ConfigurationError(
            f"QUEUE_LIMIT: {settings.queue_limit} is more than a process can serve at a time, so the queue would never"
            f" be full. Set it to {min(MOST_REQUESTS, connections // 2)} or less, or allow more open files with"
            " `ulimit -n`."
        )
    return connections


def load_app() -> "Application":
    """Return the application, in a process of the server. If the configuration can't be used, the process exits with 2.

    The configuration may have become wrong since the main process checked it.
    """
    from api.app import create_app, guarded
    from api.connections import Connections
    from api.hot_path import HotPath
    from api.http.edge.admission import Admission
    from api.http.edge.exchanges import Exchanges
    from api.http.edge.fair_shares import FairShares
    from api.http.edge.large_bodies import LargeBodies
    from api.http.edge.used_connections import UsedConnections

    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        inner, settings = create_app(stop=stop), Settings.load()
        admission = Admission(LargeBodies(HotPath.of(inner)), most_requests=MOST_REQUESTS)
        app = Exchanges(guarded(FairShares(admission), inner))
        most, addresses = connections_for(settings), inner.state.gate.addresses
        connections = Connections(settings.host, settings.port, most, addresses, needs_request=True)
    except ConfigurationError as error:
        sys.exit(startup.report(error))
    # All of this lives as long as the process. To search it for garbage would stop every request for 100 ms, each
    # second or two.
    gc.collect()
    gc.freeze()
    connections.start()
    return UsedConnections(app, connections.use)


if __name__ == "__main__":
    startup.run(partial(main, prog_name="bin/api"))
