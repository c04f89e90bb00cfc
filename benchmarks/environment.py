"""Where the benchmarks run: a PostgreSQL and a Redis of their own, and the processes under test."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import psutil
import psycopg

from deploy.embedded import PostgreSQL, RedisServer
from domain.runtime.settings import ROOT
from migrations.main import migrate

Connection = psycopg.Connection[tuple[object, ...]]

#: Every item has enough for the longest run.
STOCK = 2_000_000_000

ITEMS = 10_000

#: Each process of the product stops within ten seconds.
STOP_SECONDS = 15

#: The Redis database of an environment that shares its servers with the first one.
SECOND_REDIS_DATABASE = 1

#: With the confirmation step, which no worker here reaches, there are two outbox rows for each reservation.
ROUTES = """
[[destination]]
name = "null"
url = "null:"
events = ["booking.*"]
"""


@dataclass(frozen=True)
class Environment:
    """Two servers, and the environment variables that lead processes to them."""

    postgresql: PostgreSQL
    redis: RedisServer
    variables: Mapping[str, str]

    @property
    def url(self) -> str:
        return self.variables["DATABASE_URL"]

    def connect(self) -> Connection:
        return psycopg.connect(self.url, autocommit=True)

    def with_database(self, name: str) -> "Environment":
        """Return an environment on the same servers that has a database and a Redis database of its own."""
        variables = {**self.variables, "DATABASE_URL": self.postgresql.create(name)}
        variables["REDIS_URL"] = f"{self.redis.url}?db={SECOND_REDIS_DATABASE}"
        subprocess.run(["bin/migrate"], env={**os.environ, **variables}, cwd=ROOT, check=True, capture_output=True)
        return replace(self, variables=variables)

    def with_routes(self, name: str, routes: str) -> "Environment":
        """Return this environment with other destinations."""
        path = Path(self.variables["HOLDFAST_HOME"]) / f"{name}.toml"
        path.write_text(routes)
        return replace(self, variables={**self.variables, "HOLDFAST_ROUTES": str(path)})

    def empty_database(self, name: str) -> str:
        """Make an empty database of that name on the same server, in place of an earlier one. Return its URL."""
        with self.connect() as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        return self.postgresql.create(name)

    def clear(self) -> None:
        """Start again with full stock, no reservations, any routes and fresh statistics."""
        with self.connect() as connection:
            connection.execute("""
                TRUNCATE items, reservations, guests, reservation_lines, reservation_history, bookings,
                    calendar_occupancies, idempotency_requests, outbox, outbox_routes, feed_events
                RESTART IDENTITY
            """)
            # The ids start again at 1, so a low watermark of the run before would hide new rows.
            connection.execute("UPDATE outbox_lanes SET low_watermark = 0, leased_until = NULL")
            connection.execute("UPDATE outbox_destinations SET failures = 0, open_until = NULL, recovered_at = NULL")
            connection.execute(
                "INSERT INTO items (sku, name, available_quantity, stock_quantity)"
                " SELECT 'sku-' || n, 'Item', %s, %s FROM generate_series(1, %s) n",
                [STOCK, STOCK, ITEMS],
            )
            connection.execute("VACUUM (ANALYZE)")
            connection.execute("CHECKPOINT")

    @contextmanager
    def running(self, *command: str, **more: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run a process of the product while the block runs, and stop it with SIGTERM, as an operator does."""
        variables = {**os.environ, **self.variables, **more}
        process = subprocess.Popen(command, env=variables, cwd=ROOT, stdout=subprocess.DEVNULL)
        try:
            yield process
        finally:
            _stop(process)

    @contextmanager
    def serving(self, app: str, port: int, **more: str) -> Iterator[subprocess.Popen[bytes]]:
        """Serve an application by one process. The server is the same for every application."""
        with self.running(sys.executable, "-m", "benchmarks.serve", app, str(port), **more) as process:
            wait_until(lambda: _answers(port))
            yield process


@contextmanager
def environment() -> Iterator[Environment]:
    """Start the servers in a temporary folder, and stop them at the end."""
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as folder:
        home = Path(folder)
        postgresql, redis = PostgreSQL(home / "postgresql"), RedisServer(home / "redis")
        routes = home / "routes.toml"
        routes.write_text(ROUTES)
        variables = {
            "HOLDFAST_HOME": folder,
            "DATABASE_URL": postgresql.url,
            "REDIS_URL": redis.url,
            "HOLDFAST_ROUTES": str(routes),
            "CONFIRMATION_URL": "http://127.0.0.1:1/",
            "WEBHOOK_PRIVATE_NETWORKS": "127.0.0.0/8",
            "AUTH": "none",
            "LOG_LEVEL": "ERROR",
        }
        os.environ.update(variables)
        migrate()
        try:
            yield Environment(postgresql, redis, variables)
        finally:
            redis.stop()
            postgresql.stop("immediate")


def wait_until(condition: Callable[[], object], *, seconds: float = 60.0) -> None:
    """Return as soon as `condition()` is true. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.02)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stop a process with SIGTERM. Raises subprocess.TimeoutExpired if it does not end, and leaves nothing of it."""
    if process.poll() is not None:
        return
    children = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        for one in (psutil.Process(process.pid), *children):
            with suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait()
        raise


def _answers(port: int) -> bool:
    try:
        httpx.get(f"http://127.0.0.1:{port}/")
    except httpx.HTTPError:
        return False
    return True
