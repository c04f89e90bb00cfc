"""`bin/up`: run everything on this machine, with one command, from nothing."""

import fcntl
import os
import shlex
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial

import honcho.manager
import httpx
import rich_click as click
from honcho.environ import parse_procfile

from api.ports import require_free
from deploy.demo import seed
from deploy.embedded import PostgreSQL, RedisServer
from domain.runtime import startup
from domain.runtime.errors import ConfigurationError
from domain.runtime.settings import HOME, ROOT, Settings
from worker.commands import command_line
from worker.commands.command_line import Command
from worker.commands.runner import reporting

#: Every process ends within 10 s of SIGTERM. One that has not ended by then hangs, and is killed.
honcho.manager.KILL_WAIT = 11

#: The API answers well within this time, or something is wrong.
READY_SECONDS = 60.0

#: The settings that lead to what was started. Every command reads them, unless the environment has others.
ENV_FILE = HOME / "env"

#: Whoever holds a lock on this file uses HOLDFAST_HOME. It contains the id of that process.
LOCK_FILE = HOME / "lock"

DEFAULT_PORT, DEFAULT_GRPC_PORT = 8000, 50051

#: What honcho returns after Ctrl-C and after SIGTERM.
STOPPED = (130, 143)


@click.command(
    "bin/up",
    cls=Command,
    examples=["bin/up", "PORT=8080 bin/up"],
    exit_codes={
        0: "stopped by Ctrl-C or SIGTERM",
        1: "the database or a process failed; any other code is that of the process that failed first",
        2: "wrong usage or configuration, or a port or HOLDFAST_HOME is in use; nothing was started",
    },
)
def main() -> int:
    """Run everything on this machine, until Ctrl-C.

    This starts a PostgreSQL and a Redis, unless DATABASE_URL and REDIS_URL (or BROKER_URL) name yours, migrates the
    database, creates a few demo items, and runs the API, the worker, the scheduler and a stand-in for the outside
    world. The API listens at HOST (127.0.0.1) and PORT (8000), the gRPC service at GRPC_PORT (50051), the stand-in at
    PARTNERS_PORT (PORT + 1). The data is kept in HOLDFAST_HOME (.holdfast).
    """
    host, port = os.environ.get("HOST") or "127.0.0.1", _port("PORT", DEFAULT_PORT)
    partners_port, grpc_port = _port("PARTNERS_PORT", port + 1), _port("GRPC_PORT", DEFAULT_GRPC_PORT)
    given = {name: os.environ[name] for name in ("DATABASE_URL", "REDIS_URL", "BROKER_URL") if os.environ.get(name)}
    with ExitStack() as running:
        lock_home(running)
        for variable, wanted in (("PORT", port), ("PARTNERS_PORT", partners_port), ("GRPC_PORT", grpc_port)):
            require_free(host, wanted, variable)
        ENV_FILE.unlink(missing_ok=True)  # it may lead to servers of an earlier run
        environment = _servers(running, given) | _partners(partners_port)
        os.environ.update(environment)
        settings = Settings.load()
        ENV_FILE.touch(mode=0o600)  # there may be a password in it
        ENV_FILE.write_text("".join(f"{name}={shlex.quote(value)}\n" for name, value in environment.items()))
        running.callback(ENV_FILE.unlink, missing_ok=True)
        with reporting("Nothing was started."):
            # The processes of another's database may be elsewhere, with other routes: then the operator decides.
            seed(use_routes="DATABASE_URL" not in given)
        return _run(_welcome(settings, given), settings)


def _port(variable: str, default: int) -> int:
    written = os.environ.get(variable) or str(default)
    if not written.isdigit() or not 0 < int(written) < 65_536:
        raise ConfigurationError(f"{variable}: {written!r} is not a port; it must be a number from 1 to 65535.")
    return int(written)


def lock_home(running: ExitStack) -> None:
    """Keep HOLDFAST_HOME for this process until the end. Raises ConfigurationError if another one uses it.

    Two of them would share one PostgreSQL and one Redis, and the first to end would stop both. The kernel releases the
    lock of a process that was killed: `lockf` locks for this process alone, `flock` for its children too.
    """
    HOME.mkdir(parents=True, exist_ok=True)
    file = running.enter_context(LOCK_FILE.open("a+"))
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = LOCK_FILE.read_text().strip()
        raise ConfigurationError(
            f"Another bin/up (process {holder}) uses {HOME}. Stop it, or set HOLDFAST_HOME to another folder."
        ) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()


def _servers(running: ExitStack, given: Mapping[str, str]) -> dict[str, str]:
    """Start the servers that the environment does not name, and let them be stopped at the end."""
    environment = dict(given)
    if "DATABASE_URL" not in given:
        postgresql = PostgreSQL(HOME / "postgresql")
        running.callback(postgresql.stop)
        environment["DATABASE_URL"] = postgresql.url
    if "REDIS_URL" not in given and "BROKER_URL" not in given:
        redis = RedisServer(HOME / "redis")
        running.callback(redis.stop)
        environment["REDIS_URL"] = redis.url
    return environment


def _partners(port: int) -> dict[str, str]:
    """Return the settings that lead to the stand-in for the outside world, unless the environment has others."""
    defaults = {
        "PARTNERS_PORT": str(port),
        "CONFIRMATION_URL": f"http://127.0.0.1:{port}/confirmations",
        "HOLDFAST_ROUTES": str(ROOT / "examples" / "partners" / "routes.toml"),
        "WEBHOOK_PRIVATE_NETWORKS": "127.0.0.0/8",
    }
    return {name: os.environ.get(name, default) for name, default in defaults.items()}


def _run(welcome: str, settings: Settings) -> int:
    """Run the processes of the Procfile and the partners. Return the exit code."""
    manager = honcho.manager.Manager()
    for name, command in parse_procfile((ROOT / "Procfile").read_text()).processes.items():
        if name != "release":
            # Without `exec`, signals would go to a shell, which ends before the process that it has started.
            manager.add_process(name, f"exec {command}", cwd=str(ROOT), env=dict(os.environ))
    partners = f"exec bin/python -m examples.partners.app --port {os.environ['PARTNERS_PORT']}"
    manager.add_process("partners", partners, cwd=str(ROOT), env=dict(os.environ))
    threading.Thread(target=_print_when_ready, args=[welcome, settings], daemon=True).start()
    manager.loop()
    return 0 if manager.returncode in STOPPED else manager.returncode or 1


def _print_when_ready(welcome: str, settings: Settings) -> None:
    """Print the welcome as soon as the API is ready."""
    url = _url(settings)
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/health/ready").is_success:
                print(welcome, flush=True)
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    print(f"\nHoldfast does not answer at {url} yet. The lines above say why.\n", flush=True)


def _welcome(settings: Settings, given: Mapping[str, str]) -> str:
    """Return what is running, where, and what to try."""
    broker = next((name for name in ("BROKER_URL", "REDIS_URL") if name in given), None)
    return WELCOME.format(
        url=_url(settings),
        grpc=_url(settings, settings.grpc_port).removeprefix("http://"),
        partners=f"http://127.0.0.1:{os.environ['PARTNERS_PORT']}",
        database="yours, at DATABASE_URL" if "DATABASE_URL" in given else f"in {HOME}, where the data is kept",
        broker=f"yours, at {broker}" if broker else f"in {HOME}; it carries wake-ups and keeps no data",
    )


def _url(settings: Settings, port: int | None = None) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{port or settings.port}"


WELCOME = """
Holdfast is running.

  API          {url}   the operations, to try in a browser: {url}/schema
  gRPC         {grpc}   the same reservations: docs/grpc.md
  worker       delivers events, confirms reservations, expires holds
  scheduler    wakes the worker by the clock
  partners     {partners}   a stand-in for the outside world: it confirms reservations and
               receives events. See what it has received: curl -s {partners}/received
  PostgreSQL   {database}
  Redis        {broker}

Reserve two of the demo rooms, then read the newest reservation: within a second PENDING has become CONFIRMED.

  curl -s {url}/reservations -H 'Content-Type: application/json' -H 'Idempotency-Key: first' \\
       -d '{{"sku": "ROOM-DOUBLE", "quantity": 2}}'
  curl -s "{url}/reservations?limit=1"

In a second terminal, bin/doctor checks the data, and bin/why RESERVATION_ID shows where each event of a reservation is.

Ctrl-C stops everything and keeps the data.
"""


if __name__ == "__main__":
    startup.run(partial(command_line.run, main))
