"""A PgBouncer for tests, from Debian's package: a few connections to PostgreSQL for as many clients as come."""

import os
import pwd
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from domain.runtime.settings import HOME
from tests.support.ports import free_port
from tests.support.requirements import required
from tests.support.waiting import wait_until

PROGRAM = Path("/usr/sbin/pgbouncer")

#: Fewer than the clients of any test, so that each connection is used by several of them.
POOL_SIZE = 3

CONFIGURATION = """
[databases]
{name} = host={host} dbname={name} user={user}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {pool_size}
max_client_conn = 500
query_wait_timeout = 30
admin_users = admin
{more}
"""


@contextmanager
def a_pgbouncer(url: str, *, pool_size: int = POOL_SIZE, more: str = "") -> Iterator["PgBouncer"]:
    """Run a PgBouncer before a database, in transaction pooling. `more` are further lines of its configuration."""
    required("PgBouncer", PROGRAM.exists(), "pgbouncer")
    pooler = PgBouncer(url, pool_size, more)
    try:
        pooler.start()
        yield pooler
    finally:
        pooler.stop()


class PgBouncer:
    """One process. After `stop` and `start` it has the same port."""

    def __init__(self, url: str, pool_size: int, more: str) -> None:
        self._to = {name: str(value) for name, value in conninfo_to_dict(url).items()}
        self._home = Path(tempfile.mkdtemp(prefix="pgbouncer-", dir=HOME))
        self._process: subprocess.Popen[bytes]
        self.port = free_port()
        self.url = f"postgresql://{self._to['user']}@127.0.0.1:{self.port}/{self._to['dbname']}"
        self._configuration = self._home / "pgbouncer.ini"
        self._configuration.write_text(
            CONFIGURATION.format(
                name=self._to["dbname"],
                host=self._to["host"],
                user=self._to["user"],
                port=self.port,
                pool_size=pool_size,
                more=more,
            )
        )
        # PgBouncer does not run as root. It gets to the socket of PostgreSQL as the owner of that.
        self._owner = pwd.getpwuid(os.stat(self._to["host"]).st_uid).pw_name
        os.chmod(self._home, 0o755)  # noqa: S103 - there is nothing secret in it

    def start(self) -> None:
        command = [str(PROGRAM), str(self._configuration)]
        if os.geteuid() == 0:
            command = ["setpriv", f"--reuid={self._owner}", f"--regid={self._owner}", "--clear-groups", *command]
        with (self._home / "output").open("ab") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        wait_until("PgBouncer answers", self._answers)

    def stop(self) -> None:
        """Kill it: its clients lose their connections."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def show(self, what: str) -> list[Mapping[str, Any]]:
        """Return what its console shows."""
        with self._console() as console:
            cursor = console.execute(f"SHOW {what}".encode())
            assert cursor.description is not None
            names = [column.name for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def command(self, command: str) -> None:
        """Run a command of its console, such as PAUSE or RESUME."""
        with self._console() as console:
            console.execute(command.encode())

    def _console(self) -> psycopg.Connection[Any]:
        url = f"postgresql://admin@127.0.0.1:{self.port}/pgbouncer"
        return psycopg.connect(url, autocommit=True, cursor_factory=psycopg.ClientCursor)

    def _answers(self) -> bool:
        assert self._process.poll() is None, (self._home / "output").read_text()
        with suppress(psycopg.OperationalError), psycopg.connect(self.url, connect_timeout=1) as connection:
            return connection.execute("SELECT 1").fetchone() == (1,)
        return False
