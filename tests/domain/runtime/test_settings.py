"""Settings: environment variables that are checked before anything starts. Each wrong one is named."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from pydantic import ValidationError

from domain.runtime.errors import ConfigurationError
from domain.runtime.settings import ROOT, Settings

URL = "postgresql://somebody@127.0.0.1/holdfast"


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in Settings.model_fields.values():
        monkeypatch.delenv(str(field.alias), raising=False)
    monkeypatch.setenv("DATABASE_URL", URL)


def refused() -> ConfigurationError:
    """Load settings of which some are wrong. Return the error."""
    with pytest.raises(ConfigurationError) as caught:
        Settings.load()
    return caught.value


def named(error: ConfigurationError) -> list[str]:
    """Return the variables that an error names, one a line."""
    return [line.split(": ")[0] for line in str(error).splitlines()]


def test_only_the_database_must_be_set() -> None:
    settings = Settings.load()

    assert settings.database_url == URL
    assert settings.broker() == settings.redis_url == "redis://127.0.0.1:6379/0"
    assert (settings.routes_file, settings.confirmation_url) == (None, None)
    assert (settings.host, settings.port, settings.hold_seconds) == ("127.0.0.1", 8000, 900)


@pytest.mark.parametrize(
    ("name", "value", "field"),
    [
        ("DATABASE_DIRECT_URL", "postgresql://primary/holdfast", "database_direct_url"),
        ("REDIS_URL", "rediss://cache:6380/1", "redis_url"),
        ("BROKER_URL", "amqp://queue/", "broker_url"),
        ("CONFIRMATION_URL", "https://confirm.example/v1", "confirmation_url"),
        ("CONFIRMATION_TIMEOUT_SECONDS", "2.5", "confirmation_timeout_seconds"),
        ("PAYMENT_URL", "https://pay.example/v1", "payment_url"),
        ("STEP_TIMEOUT_SECONDS", "2.5", "step_timeout_seconds"),
        ("DELIVERY_TIMEOUT_SECONDS", "60.0", "delivery_timeout_seconds"),
        ("HOLD_SECONDS", "604800", "hold_seconds"),
        ("REQUIRE_IDEMPOTENCY_KEYS", "True", "require_idempotency_keys"),
        ("HOST", "::1", "host"),
        ("PORT", "65535", "port"),
        ("WEB_CONCURRENCY", "64", "web_processes"),
        ("QUEUE_LIMIT", "1", "queue_limit"),
        ("WORKER_METRICS_PORT", "0", "worker_metrics_port"),
        ("SCHEDULER_METRICS_PORT", "65535", "scheduler_metrics_port"),
        ("OUTBOX_RETENTION_DAYS", "0.5", "outbox_retention_days"),
        ("FEED_RETENTION_DAYS", "0.5", "feed_retention_days"),
        ("LOG_LEVEL", "DEBUG", "log_level"),
        ("HOLDFAST_ROUTES", str(ROOT / "examples" / "partners" / "routes.toml"), "routes_file"),
    ],
)
def test_every_variable_is_read(monkeypatch: pytest.MonkeyPatch, name: str, value: str, field: str) -> None:
    monkeypatch.setenv(name, value)

    assert str(getattr(Settings.load(), field)) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", ""),
        ("DATABASE_URL", "mysql://somewhere/holdfast"),
        ("DATABASE_URL", "127.0.0.1"),
        ("DATABASE_URL", "postgresql://somewhere:port/holdfast"),
        ("DATABASE_DIRECT_URL", "mysql://somewhere/holdfast"),
        ("REDIS_URL", "http://somewhere"),
        ("REDIS_URL", ""),
        ("BROKER_URL", "kafka://somewhere"),
        ("CONFIRMATION_URL", "confirm.example"),
        ("CONFIRMATION_URL", "https://"),
        ("CONFIRMATION_TIMEOUT_SECONDS", "0"),
        ("CONFIRMATION_TIMEOUT_SECONDS", "soon"),
        ("CONFIRMATION_TIMEOUT_SECONDS", "nan"),
        ("DELIVERY_TIMEOUT_SECONDS", "61"),
        ("HOLD_SECONDS", "0"),
        ("HOLD_SECONDS", "604801"),
        ("HOLD_SECONDS", "1.5"),
        ("HOST", "not an address"),
        ("HOST", "fe80::1%eth0"),
        ("PORT", "0"),
        ("PORT", "65536"),
        ("WEB_CONCURRENCY", "0"),
        ("QUEUE_LIMIT", "0"),
        ("OUTBOX_RETENTION_DAYS", "0"),
        ("OUTBOX_RETENTION_DAYS", "inf"),
        ("LOG_LEVEL", "LOUD"),
        ("HOLDFAST_ROUTES", "/nowhere/routes.toml"),
    ],
)
def test_a_wrong_setting_is_refused_and_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)

    assert named(refused()) == [name]


def test_a_missing_database_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL")

    assert named(refused()) == ["DATABASE_URL"]


def test_all_wrong_settings_are_named_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "x")
    monkeypatch.setenv("HOLD_SECONDS", "x")

    assert sorted(named(refused())) == ["HOLD_SECONDS", "PORT"]


def test_an_error_does_not_contain_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "mysql://somebody:hunter2@somewhere/")

    error = refused()

    assert "hunter2" not in str(error)
    assert error.__cause__ is None and error.__suppress_context__, "a traceback would show the values of the cause"


@pytest.mark.parametrize("name", ["BROKER_URL", "CONFIRMATION_URL", "DATABASE_DIRECT_URL"])
def test_an_empty_variable_means_that_it_is_not_set(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "")
    settings = Settings.load()

    assert (settings.broker_url, settings.confirmation_url, settings.database_direct_url) == (None, None, None)


def test_settings_do_not_change() -> None:
    settings = Settings.load()

    with pytest.raises(ValidationError):
        settings.port = 1


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("DATABASE_URL", "postgresql://ann:se/cret@db.example/holdfast"),
        ("REDIS_URL", "redis://ann:se/cret@redis.example/0"),
        ("BROKER_URL", "amqp://ann:se?cret@rabbitmq.example/"),
        ("CONFIRMATION_URL", "https://ann:se/cret@confirm.example/"),
        ("CONFIRMATION_URL", "https://ann:8/se/cret@confirm.example/"),
        ("CONFIRMATION_URL", "https://se/cret@confirm.example/"),
        ("DATABASE_URL", "postgresql://ann:se@cret@db.example/holdfast"),
        ("DATABASE_URL", "postgresql://ann:8/se/cret@db.example/holdfast"),
        ("DATABASE_URL", "postgresql://ann:[se]cret@db.example/holdfast"),
        # Python's parser takes this character for a/c.
        ("DATABASE_URL", "postgresql://ann:se\u2100cret@db.example/holdfast"),
        ("REDIS_URL", "redis://ann:8?cret=se@redis.example/0"),
        ("REDIS_URL", "redis:///se/cret@redis.example/0"),
        ("REDIS_URL", "REDIS://ann:8?cret=se@redis.example/0"),
        ("BROKER_URL", "amqp://ann:8?cret=se@rabbitmq.example/"),
    ],
)
def test_a_password_that_was_not_encoded_is_not_quoted(monkeypatch: pytest.MonkeyPatch, name: str, url: str) -> None:
    monkeypatch.setenv(name, url)

    with pytest.raises(ConfigurationError) as error:
        Settings.load()

    assert f"{name}: " in str(error.value) and "%2F" in str(error.value)
    assert "'se'" not in str(error.value) and "cret" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "url", "hint"),
    [
        ("DATABASE_URL", "postgresql://db.example/holdfast?user=ann&password=se&cret=1", "write & as %26"),
        ("REDIS_URL", "redis://redis.example/0?password=se&cret=1", "write it before the host"),
        ("BROKER_URL", "redis://redis.example/0?password=se&cret=1", "write it before the host"),
    ],
)
def test_an_ampersand_in_a_password_does_not_make_an_option_of_its_rest(
    monkeypatch: pytest.MonkeyPatch, name: str, url: str, hint: str
) -> None:
    monkeypatch.setenv(name, url)

    error = refused()

    assert named(error) == [name] and hint in str(error) and "cret" not in str(error)


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("DATABASE_URL", "postgresql://ann:s%40%2F%3F%23%26%25@db.example:5433/holdfast?sslmode=require"),
        ("DATABASE_URL", "postgresql:///holdfast?host=/run/postgresql"),
        ("REDIS_URL", "redis://ann:s%40%2F%3F%23%26%25@redis.example/0"),
        ("REDIS_URL", "redis://:s@ret@redis.example/0"),
        ("REDIS_URL", "unix:///run/redis.sock?db=1"),
        ("BROKER_URL", "amqp://ann:s%40%2F%3F%23%26%25@rabbitmq.example/%2F?heartbeat=60"),
        ("CONFIRMATION_URL", "https://ann:s%40%2F%3F%23%26%25@confirm.example/%40ann?to=ann%40confirm.example"),
    ],
)
def test_a_url_of_which_each_part_is_certain_is_accepted(monkeypatch: pytest.MonkeyPatch, name: str, url: str) -> None:
    monkeypatch.setenv(name, url)

    assert url in Settings.load().model_dump().values()


#: Loads the settings in a process of its own: which file it reads is decided when the module is imported.
SHOW = "from domain.runtime.settings import Settings; s = Settings.load(); print(s.database_url, s.port)"


def shown(home: Path, environment: Mapping[str, str]) -> str:
    ran = subprocess.run(
        [sys.executable, "-c", SHOW],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOLDFAST_HOME": str(home), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return ran.stdout.strip()


def test_a_variable_that_is_not_in_the_environment_is_read_from_the_home_directory(tmp_path: Path) -> None:
    (tmp_path / "env").write_text(f"DATABASE_URL={URL}\nPORT=9000\n")

    assert shown(tmp_path, {}) == f"{URL} 9000"
    assert shown(tmp_path, {"PORT": "9001"}) == f"{URL} 9001"


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("DATABASE_URL", None, "it is not set. Set it, or start bin/up: all commands then find its database"),
        ("PORT", "eighty", "it must be a valid integer"),
        ("WEB_CONCURRENCY", "0", "it must be greater than or equal to 1"),
        ("LOG_LEVEL", "LOUD", "it must be 'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
    ],
)
def test_a_wrong_variable_is_described_in_words_for_people(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str | None, complaint: str
) -> None:
    monkeypatch.delenv(name, raising=False)
    if value is not None:
        monkeypatch.setenv(name, value)

    assert str(refused()) == f"{name}: {complaint}"
