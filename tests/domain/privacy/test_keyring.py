"""The keyring: what it takes, what it refuses without showing it, and what it never mixes up."""

import base64
from pathlib import Path

import pytest

from domain.privacy import Keyring
from domain.privacy.keyring import new_key
from domain.runtime.errors import ConfigurationError, GuestUnreadable
from domain.runtime.settings import Settings
from tests.domain.privacy.people import key, keyring, written
from tests.support.builders import some_settings

ROW = b"r" * 16
SECRET = base64.b64encode(b"secret-of-the-hotel-with-32-byte").decode()


def test_the_first_key_wraps_and_every_key_unwraps() -> None:
    wrapped = keyring("old").wrap(b"data key", ROW)

    keys = keyring("new", "old")

    assert keys.key_id == "new" and keys.key_ids == {"new", "old"}
    assert keys.unwrap("old", wrapped, ROW) == b"data key"
    assert keys.unwrap("new", keys.wrap(b"data key", ROW), ROW) == b"data key"


def test_what_is_wrapped_twice_looks_different_each_time() -> None:
    keys = keyring("one")

    assert len({keys.wrap(b"data key", ROW) for _ in range(1_000)}) == 1_000


@pytest.mark.parametrize(
    ("key_id", "row", "cut"), [("gone", ROW, None), ("other", ROW, None), ("one", b"s" * 16, None), ("one", ROW, 20)]
)
def test_a_data_key_is_unwrapped_by_its_own_key_and_for_its_row_only(key_id: str, row: bytes, cut: int | None) -> None:
    keys = keyring("one", "other")
    wrapped = keys.wrap(b"data key", ROW)

    with pytest.raises(GuestUnreadable, match=key_id):
        keys.unwrap(key_id, wrapped[:cut], row)


def test_a_hash_differs_by_key_by_purpose_and_by_text() -> None:
    keys = keyring("one", "other")
    asked = [("email", "a@b"), ("telephone", "a@b"), ("email", "a@c")]

    assert len({one for purpose, text in asked for one in keys.hashes(purpose, text)}) == 6
    assert keyring("other").hash("email", "a@b") == keys.hashes("email", "a@b")[1] != keys.hash("email", "a@b")


@pytest.mark.parametrize(
    "wrong",
    [
        SECRET,
        f"a:{SECRET[:20]}",
        f"a:{SECRET},b:{SECRET[:-4]}",
        f"a:{SECRET},b:{SECRET}",
        f"{key('a')},a:{SECRET}",
        f"ä:{SECRET}",
        f":{SECRET}",
        f"{'a' * 51}:{SECRET}",
        f"a:{SECRET[:-2]}é=",
        f"a {SECRET}",
        ",",
    ],
)
def test_keys_that_can_not_be_used_are_refused_and_not_shown(wrong: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^PII_KEYS: ") as refused:
        Keyring.of(some_settings(pii_keys=wrong))

    assert SECRET[:20] not in str(refused.value) and SECRET[:20] not in repr(some_settings(pii_keys=wrong))


def test_keys_are_read_from_a_file_with_a_line_for_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PII_KEYS")
    monkeypatch.setenv("DATABASE_URL", "postgresql://nowhere/none")
    monkeypatch.setenv("PII_KEYS_FILE", str(tmp_path / "keys"))
    (tmp_path / "keys").write_text(f"{key('new')}\n{key('old')}\n")

    keys = Keyring.of(Settings.load())

    assert keys and keys.key_id == "new" and keys.key_ids == {"new", "old"}


@pytest.mark.parametrize("given", [None, ""])
def test_without_keys_there_is_no_keyring(given: str | None) -> None:
    assert Keyring.of(some_settings(pii_keys=given)) is None


def test_keys_in_two_places_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "keys").write_text(key("new"))
    monkeypatch.setenv("DATABASE_URL", "postgresql://nowhere/none")
    monkeypatch.setenv("PII_KEYS", written("old"))
    monkeypatch.setenv("PII_KEYS_FILE", str(tmp_path / "keys"))

    with pytest.raises(ConfigurationError, match="PII_KEYS_FILE: PII_KEYS is set as well"):
        Settings.load()


def test_a_new_key_can_be_used_at_once() -> None:
    assert Keyring.read(new_key("2030-01")).key_id == "2030-01"
