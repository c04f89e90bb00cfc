"""A standby of an embedded PostgreSQL: it streams, PostgreSQL waits for it at each commit, and it can be promoted."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg

from deploy.embedded import START_SECONDS, PostgreSQL
from tests.support.waiting import wait_until

#: The name that the standby has at its primary.
NAME = "standby"


@contextmanager
def a_standby(primary: PostgreSQL) -> Iterator["Standby"]:
    """Start a standby. It ends with the block, and its files go."""
    home = Path(tempfile.mkdtemp(prefix="standby-"))
    standby = Standby(primary, home)
    try:
        standby.start()
        yield standby
    finally:
        standby.stop()
        shutil.rmtree(home, ignore_errors=True)


@dataclass
class Standby:
    """A copy of `primary` in the folder `home`, which is empty. Its socket is in that folder."""

    primary: PostgreSQL
    home: Path

    def start(self) -> None:
        """Copy the primary and follow it. Returns when the primary waits for this standby at each commit."""
        if os.geteuid() == 0:
            shutil.chown(self.home, self.primary._server.system_user)
        source = f"{self.primary._server.get_uri()}&application_name={NAME}"
        self._run("pg_basebackup", "-d", source, "-D", str(self.home), "-R", "-X", "stream", "-c", "fast")
        # The socket of the primary is in its folder, so its lock is copied as well.
        for lock in self.home.glob(".s.PGSQL.*.lock"):
            lock.unlink()
        self._control("start", "-l", str(self.home / "log"), "-o", f'-h "" -k {self.home}')
        self._make_synchronous()

    @property
    def socket(self) -> str:
        return f"{self.home}/.s.PGSQL.5432"

    def promote(self) -> None:
        """Make it a primary, which waits for no standby. Returns when it takes writes."""
        self._control("promote")

    def stop(self) -> None:
        with suppress(subprocess.CalledProcessError):  # it never started
            self._control("stop", "-m", "immediate")

    def _make_synchronous(self) -> None:
        with psycopg.connect(self.primary.url, autocommit=True) as connection:
            connection.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{NAME}'")
            connection.execute("SELECT pg_reload_conf()")
            asked = "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'"
            wait_until("the standby is synchronous", lambda: connection.execute(asked).fetchone())

    def _control(self, action: str, *arguments: str) -> None:
        self._run("pg_ctl", "-w", "-D", str(self.home), action, *arguments)

    def _run(self, program: str, *arguments: str) -> None:
        server = self.primary._server
        command: Sequence[str] = [str(server.bin_path / program), *arguments]
        if os.geteuid() == 0:  # PostgreSQL can't run as root
            command = ["runuser", "-u", server.system_user, "--", *command]
        subprocess.run(command, check=True, capture_output=True, timeout=START_SECONDS, cwd="/")
