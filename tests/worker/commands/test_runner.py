"""Expected errors are reported in one line: what happened, what it means for this command, and what to do."""

import os
import signal
import threading
from pathlib import Path

import pytest

from deploy.embedded import PostgreSQL
from tests.support.builders import Db
from tests.support.commands import run_bare, run_command
from tests.worker.commands.every_command import ACCEPTED
from worker.commands.runner import stoppable

pytestmark = pytest.mark.slow

#: Nothing listens there.
NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"

#: Commands that only read: an error leaves nothing behind, so nothing is said of changes.
READING = {("doctor",), ("why",), ("dead-letters", "list"), ("dead-letters", "show"), ("destinations", "list")}


@pytest.mark.parametrize("path", ACCEPTED, ids=" ".join)
def test_a_database_that_can_not_be_reached_is_reported_in_one_line(path: tuple[str, ...]) -> None:
    run = run_command(*path, *ACCEPTED[path], DATABASE_URL=NOWHERE)

    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith("The database can't be reached (") and len(run.stderr.splitlines()) == 1
    assert run.stderr.endswith(" Check DATABASE_URL and that PostgreSQL runs, and run it again.\n")
    assert path not in READING or "change" not in run.stderr


@pytest.mark.parametrize("script", ["process-outbox", "expire-reservations", "prune"])
def test_a_database_that_is_not_migrated_is_reported_in_one_line(postgresql: PostgreSQL, script: str) -> None:
    run = run_command(script, DATABASE_URL=postgresql.create("bare"))

    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith("The database refused a statement (") and len(run.stderr.splitlines()) == 1
    assert "does not exist" in run.stderr and "bin/migrate" in run.stderr


def test_a_standby_is_named_as_what_it_is(postgresql: PostgreSQL, db: Db) -> None:
    only_reads = "options=-c%20default_transaction_read_only%3Don"
    url = os.environ["DATABASE_URL"]

    run = run_command("process-outbox", DATABASE_URL=f"{url}{'&' if '?' in url else '?'}{only_reads}")

    assert run.returncode == 1 and len(run.stderr.splitlines()) == 1
    assert run.stderr.startswith("The database is a standby, which takes no changes (")
    assert run.stderr.endswith(" Set DATABASE_URL to the primary, and run it again.\n")


@pytest.mark.parametrize("path", [("doctor",), ("process-outbox",), ("migrate",)], ids=" ".join)
def test_a_missing_setting_is_wrong_configuration_and_is_named(path: tuple[str, ...]) -> None:
    run = run_bare(*path)

    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("DATABASE_URL: ") and "Nothing was done." in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("script", ["doctor", "process-outbox"])
def test_a_wrong_routes_file_is_wrong_configuration_and_its_line_is_named(script: str, tmp_path: Path) -> None:
    path = tmp_path / "routes.toml"
    path.write_text('[[destination]]\nname = "shop"\n')

    run = run_command(script, DATABASE_URL=NOWHERE, HOLDFAST_ROUTES=str(path))

    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith(f"HOLDFAST_ROUTES: {path}, line 1: url")
    assert "Nothing was done." in run.stderr and "Traceback" not in run.stderr


def test_signals_do_what_they_did_before_when_the_work_is_done() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    stopping = threading.Event()

    with stoppable(stopping):
        signal.raise_signal(signal.SIGTERM)

    assert stopping.is_set()
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
    assert not [one for one in threading.enumerate() if isinstance(one, threading.Timer) and not one.finished.is_set()]
