"""bin/up where it can't run: it says so in a few lines, and leaves what is running alone."""

import os
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from deploy import home as home_folder
from deploy.embedded import PostgreSQL
from domain.privacy import Keyring
from tests.support.commands import run_bare
from tests.support.ports import free_port

pytestmark = pytest.mark.slow


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(home_folder, "HOME", tmp_path)
    monkeypatch.setattr(home_folder, "LOCK_FILE", tmp_path / "lock")
    monkeypatch.setattr(home_folder, "ENV_FILE", tmp_path / "env")
    return tmp_path


def run_up(home: Path, **environment: str) -> tuple[int, str]:
    """Run `bin/up` at free ports, without its installation, and wait for its end. Return its exit code and output."""
    ports = {name: str(free_port()) for name in ("PORT", "PARTNERS_PORT", "GRPC_PORT")}
    run = run_bare("python", "-m", "deploy.up", **(ports | environment), HOLDFAST_HOME=str(home))
    return run.returncode, run.stdout + run.stderr


def test_a_second_one_at_other_ports_is_refused_and_changes_nothing(home: Path) -> None:
    with ExitStack() as running:
        home_folder.lock_home(running)
        (home / "env").write_text("DATABASE_URL=that-of-the-first\n")
        # Without the lock it would end at these settings, and start no servers that nobody stops.
        exit_code, said = run_up(home, DATABASE_URL="nonsense", REDIS_URL="nonsense")

    assert exit_code == 2, said
    assert (
        f"Another bin/up (process {os.getpid()}) uses {home}. Stop it, or set HOLDFAST_HOME to another folder." in said
    )
    assert (home / "env").read_text() == "DATABASE_URL=that-of-the-first\n"
    assert sorted(path.name for path in home.iterdir()) == ["env", "lock"]


def test_a_schema_of_a_newer_release_is_reported_in_one_line(postgresql: PostgreSQL, tmp_path: Path) -> None:
    url = postgresql.create("newer")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)")
        connection.execute("INSERT INTO alembic_version VALUES ('9999')")

    exit_code, said = run_up(tmp_path, DATABASE_URL=url, REDIS_URL="redis://127.0.0.1:1/0")

    assert exit_code == 1
    assert said.startswith("The schema is at 9999, which a newer release has made") and len(said.splitlines()) == 1


def test_a_database_that_can_not_be_used_is_reported_in_one_line(tmp_path: Path) -> None:
    exit_code, said = run_up(
        tmp_path, DATABASE_URL="postgresql://nobody@127.0.0.1:1/nothing", REDIS_URL="redis://127.0.0.1:1/0"
    )

    assert exit_code == 1
    assert said.startswith("The database can't be reached (") and len(said.splitlines()) == 1
    assert "Nothing was started. Check DATABASE_URL" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock", "pii-keys"]


def test_the_keys_of_personal_data_are_made_once_and_only_their_owner_can_read_them(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(home_folder, "KEYS_FILE", home / "pii-keys")
    monkeypatch.delenv("PII_KEYS")

    first = home_folder.personal_data_keys()
    made = (home / "pii-keys").read_text()

    assert first == home_folder.personal_data_keys() == {"PII_KEYS_FILE": str(home / "pii-keys")}
    assert (home / "pii-keys").read_text() == made
    assert Keyring.read(made).key_id == "demo-1"
    assert (home / "pii-keys").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("given", [{"PII_KEYS": "k:x"}, {"PII_KEYS_FILE": "/run/secrets/keys", "PII_KEYS": ""}])
def test_keys_that_are_set_take_the_place_of_the_demos(
    home: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, str]
) -> None:
    monkeypatch.setattr(home_folder, "KEYS_FILE", home / "pii-keys")
    for name, value in given.items():
        monkeypatch.setenv(name, value)

    assert home_folder.personal_data_keys() == {name: value for name, value in given.items() if name.endswith("_FILE")}
    assert not (home / "pii-keys").exists()


def test_commands_find_the_queues_that_bin_up_was_started_with(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SQS_BOOKING_REQUEST_QUEUE_URL", "https://sqs.eu-central-1.amazonaws.com/1/asked")

    with ExitStack() as running:
        home_folder.write_settings(running, home_folder.slot_queues())
        written = (home / "env").read_text()

    assert written == "SQS_BOOKING_REQUEST_QUEUE_URL=https://sqs.eu-central-1.amazonaws.com/1/asked\n"
