"""Secrets as files: a setting that may hold a password can be read from a file."""

from pathlib import Path

import pytest

from domain.runtime.errors import ConfigurationError
from domain.runtime.secrets import SECRETS
from domain.runtime.settings import Settings


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "secret"


def test_the_newline_at_the_end_of_a_file_is_no_part_of_the_secret(
    settings: Settings, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("redis://:pass word@127.0.0.1/0\n")
    monkeypatch.delenv("REDIS_URL")
    monkeypatch.setenv("REDIS_URL_FILE", str(file))

    assert Settings.load().redis_url == "redis://:pass word@127.0.0.1/0"


def test_a_secret_is_given_once(settings: Settings, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("redis://127.0.0.1/0")
    monkeypatch.setenv("REDIS_URL_FILE", str(file))

    with pytest.raises(ConfigurationError, match="REDIS_URL_FILE: REDIS_URL is set as well"):
        Settings.load()


@pytest.mark.parametrize("name", SECRETS)
def test_a_file_that_can_not_be_read_is_named(
    settings: Settings, file: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(f"{name}_FILE", str(file))

    with pytest.raises(ConfigurationError, match=f"{name}_FILE: {file} can't be read"):
        Settings.load()


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("written", ["", "\n", " \r\n"])
def test_an_empty_file_is_not_taken_for_no_secret(
    settings: Settings, file: Path, monkeypatch: pytest.MonkeyPatch, name: str, written: str
) -> None:
    file.write_text(written)
    monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(f"{name}_FILE", str(file))

    with pytest.raises(ConfigurationError, match=f"{name}_FILE: {file} is empty"):
        Settings.load()


def test_what_is_wrong_in_a_file_is_reported_without_it(
    settings: Settings, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("mysql://me:hunter2@127.0.0.1/x")
    monkeypatch.delenv("DATABASE_URL")
    monkeypatch.setenv("DATABASE_URL_FILE", str(file))

    with pytest.raises(ConfigurationError) as raised:
        Settings.load()

    assert "DATABASE_URL" in str(raised.value) and "hunter2" not in str(raised.value)
