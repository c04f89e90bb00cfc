"""`bin/up`: run everything on this machine, with one command, from nothing."""

import os
import selectors
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial

import rich_click as click

from deploy import servers
from deploy.demo import NOTHING_STARTED, seed
from deploy.home import lock_home, personal_data_keys, slot_queues, write_settings
from deploy.output import Output
from deploy.ports import require_free
from deploy.programs import programs
from deploy.servers import Server
from deploy.supervisor import Supervisor, ignore_signals, on_end
from deploy.welcome import Welcome
from domain.runtime import startup
from domain.runtime.errors import ConfigurationError
from domain.runtime.settings import HOME, ROOT, Settings
from worker.commands import command_line
from worker.commands.command_line import Command
from worker.commands.runner import reporting

DEFAULT_PORT, DEFAULT_GRPC_PORT = 8000, 50051


@click.command(
    "bin/up",
    cls=Command,
    examples=["bin/up", "PORT=8080 bin/up"],
    exit_codes={
        0: "stopped by Ctrl-C, SIGTERM, or the end of its terminal",
        1: "the database failed, a process crashed repeatedly, or nobody can read the output any more",
        2: "wrong usage or configuration, or a port or HOLDFAST_HOME is in use; nothing was started",
    },
)
def main() -> int:
    """Run everything on this machine, until Ctrl-C.

    This starts a PostgreSQL and a Redis, unless DATABASE_URL and REDIS_URL (or BROKER_URL) name yours, migrates the
    database, creates a few demo items, and runs the API, the worker, the scheduler and a stand-in for the outside
    world. The API listens at HOST (127.0.0.1) and PORT (8000), the gRPC service at GRPC_PORT (50051), the stand-in at
    PARTNERS_PORT (PORT + 1). The data is kept in HOLDFAST_HOME (.holdfast). What dies is started again, with a message.
    """
    host, port = os.environ.get("HOST") or "127.0.0.1", _port("PORT", DEFAULT_PORT)
    partners_port, grpc_port = _port("PARTNERS_PORT", port + 1), _port("GRPC_PORT", DEFAULT_GRPC_PORT)
    given = {name: os.environ[name] for name in ("DATABASE_URL", "REDIS_URL", "BROKER_URL") if os.environ.get(name)}
    on_end(_exit)
    with ExitStack() as running:
        lock_home(running)
        for variable, wanted in (("PORT", port), ("PARTNERS_PORT", partners_port), ("GRPC_PORT", grpc_port)):
            require_free(host, wanted, variable)
        started, where = servers.start(running, given)
        environment = {**where, **_partners(partners_port), **slot_queues(), **personal_data_keys()}
        os.environ.update(environment)
        settings = Settings.load()
        write_settings(running, environment)
        with reporting(NOTHING_STARTED):
            # The processes of another's database may be elsewhere, with other routes: then the operator decides.
            seed(use_routes="DATABASE_URL" not in given)
        return _run(settings, given, started)


def _exit(_: int) -> None:
    """End at a signal that comes before the programs run. What was started by then is stopped."""
    ignore_signals()
    sys.exit(0)


def _port(variable: str, default: int) -> int:
    written = os.environ.get(variable) or str(default)
    if not written.isdigit() or not 0 < int(written) < 65_536:
        raise ConfigurationError(f"{variable}: {written!r} is not a port; it must be a number from 1 to 65535.")
    return int(written)


def _partners(port: int) -> dict[str, str]:
    """Return the settings that lead to the stand-in for the outside world, unless the environment has others."""
    defaults = {
        "PARTNERS_PORT": str(port),
        "PARTNERS_KEY_FILE": str(HOME / "identity.pem"),
        "CONFIRMATION_URL": f"http://127.0.0.1:{port}/confirmations",
        "INVENTORY_URL": f"http://127.0.0.1:{port}/inventory",
        "PRICING_URL": f"http://127.0.0.1:{port}/pricing",
        "PAYMENT_URL": f"http://127.0.0.1:{port}/payment",
        "HOLDFAST_ROUTES": str(ROOT / "examples" / "partners" / "routes.toml"),
        "WEBHOOK_PRIVATE_NETWORKS": "127.0.0.0/8",
    }
    if not any(os.environ.get(name) for name in ("AUTH", "AUTH_JWKS_URL", "AUTH_PUBLIC_KEY_FILE")):
        defaults["AUTH_JWKS_URL"] = f"http://127.0.0.1:{port}/jwks.json"
        defaults["AUTH_ISSUER"], defaults["AUTH_AUDIENCE"] = f"http://127.0.0.1:{port}", "holdfast"
    return {name: os.environ.get(name, default) for name, default in defaults.items()}


def _run(settings: Settings, given: Mapping[str, str], started: Sequence[Server]) -> int:
    """Run the programs until a signal comes. Return the exit code."""
    reads = selectors.DefaultSelector()
    ours = programs(dict(os.environ), reads)
    output = Output([one.name for one in ours])
    return Supervisor(started, ours, output, reads).run(Welcome(settings, given, output).look)


if __name__ == "__main__":
    startup.run(partial(command_line.run, main))
