"""Where the benchmarks play: a PostgreSQL and a Redis of their own, and the processes under test."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import psycopg

from deploy.embedded import PostgreSQL, RedisServer
from domain.runtime.settings import ROOT
from migrations.main import migrate

#: Every item has enough for the longest run.
STOCK = 2_000_000_000

ITEMS = 10_000

#: The Redis database of a stage that is set up beside the first one.
BESIDE = 1

#: One subscriber and the confirmation step, which nobody calls: two promises a reservation.
ROUTES = """
[[destination]]
name = "null"
url = "null:"
events = ["booking.*"]
"""


@dataclass(frozen=True)
class Stage:
    """Two servers and the environment that names them."""

    postgresql: PostgreSQL
    redis: RedisServer
    environment: Mapping[str, str]

    @property
    def url(self) -> str:
        return self.environment["DATABASE_URL"]

    def connect(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(self.url, autocommit=True)

    def beside(self, name: str) -> "Stage":
        """Return a stage with a database and a doorbell of its own, on the same servers."""
        environment = {**self.environment, "DATABASE_URL": self.postgresql.create(name)}
        environment["REDIS_URL"] = f"{self.redis.url}?db={BESIDE}"
        subprocess.run(["bin/migrate"], env={**os.environ, **environment}, cwd=ROOT, check=True, capture_output=True)
        return replace(self, environment=environment)

    def anew(self, name: str) -> str:
        """Make an empty database of that name on the same server. Return its URL."""
        with self.connect() as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        return self.postgresql.create(name)

    def routing(self, name: str, routes: str) -> "Stage":
        """Return this stage with other destinations."""
        path = Path(self.environment["HOLDFAST_HOME"]) / f"{name}.toml"
        path.write_text(routes)
        return replace(self, environment={**self.environment, "HOLDFAST_ROUTES": str(path)})

    def clear(self) -> None:
        """Begin anew: full stock, nothing reserved, statistics up to date."""
        with self.connect() as connection:
            connection.execute("""
                TRUNCATE items, reservations, reservation_history, idempotency_requests, outbox RESTART IDENTITY
            """)
            # The ids begin anew, and so must all that was noted of them.
            connection.execute("UPDATE outbox_lanes SET settled_to = 0, leased_until = NULL")
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
        """Run a process of the product while the block runs, and end it as an operator would."""
        environment = {**os.environ, **self.environment, **more}
        process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(15)

    @contextmanager
    def serving(self, app: str, port: int, **more: str) -> Iterator[subprocess.Popen[bytes]]:
        """Serve an application in one process of the same server, whichever it is."""
        with self.running(sys.executable, "-m", "benchmarks.serve", app, str(port), **more) as process:
            wait_until(lambda: _answers(port))
            yield process


@contextmanager
def stage() -> Iterator[Stage]:
    """Set up servers in a temporary folder, and take them away at the end."""
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as folder:
        home = Path(folder)
        postgresql, redis = PostgreSQL(home / "postgresql"), RedisServer(home / "redis")
        routes = home / "routes.toml"
        routes.write_text(ROUTES)
        environment = {
            "HOLDFAST_HOME": folder,
            "DATABASE_URL": postgresql.url,
            "REDIS_URL": redis.url,
            "HOLDFAST_ROUTES": str(routes),
            "CONFIRMATION_URL": "http://127.0.0.1:1/",
            "WEBHOOK_PRIVATE_NETWORKS": "127.0.0.0/8",
            "LOG_LEVEL": "ERROR",
        }
        os.environ.update(environment)
        migrate()
        try:
            yield Stage(postgresql, redis, environment)
        finally:
            redis.stop()
            postgresql.stop("immediate")


def wait_until(condition: object, *, seconds: float = 60.0) -> None:
    """Return as soon as `condition()` is true. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.02)


def _answers(port: int) -> bool:
    try:
        httpx.get(f"http://127.0.0.1:{port}/")
    except httpx.HTTPError:
        return False
    return True
