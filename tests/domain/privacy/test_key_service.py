"""Who keeps the keys of personal data, by the settings."""

from pathlib import Path
from uuid import UUID

import pytest

from domain.privacy import Keyring, KeyService, key_service_of
from domain.runtime.errors import ConfigurationError, GuestUnreadable, PersonalDataUnavailable
from domain.runtime.settings import Settings
from tests.domain.privacy.people import written
from tests.support.key_services import DOWN, NAME, STATE, WELL

ROW = UUID(int=1).bytes


def of(settings: Settings, **changed: object) -> KeyService | None:
    return key_service_of(settings.model_copy(update={"pii_keys": None, "pii_key_service": None, **changed}))


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "state"
    file.write_text(WELL)
    monkeypatch.setenv(STATE, str(file))
    return file


def test_a_key_service_does_what_a_keyring_does(settings: Settings, state: Path) -> None:
    service, keyring = of(settings, pii_key_service=NAME), Keyring.read(written("new", "old"))
    assert service

    assert (service.key_id, service.key_ids) == ("new", frozenset({"new", "old"}))
    assert service.unwrap("new", service.wrap(b"secret", ROW), ROW) == b"secret"
    assert service.hash("email", "ann") == keyring.hash("email", "ann")
    assert service.hashes("email", "ann") == keyring.hashes("email", "ann")
    with pytest.raises(GuestUnreadable):
        service.unwrap("lost", b"", ROW)


def test_whatever_a_key_service_raises_means_that_it_can_not_be_reached(settings: Settings, state: Path) -> None:
    service = of(settings, pii_key_service=NAME)
    assert service
    state.write_text(DOWN)

    for call in (
        lambda: service.key_id,
        lambda: service.key_ids,
        lambda: service.wrap(b"secret", ROW),
        lambda: service.unwrap("new", b"", ROW),
        lambda: service.hash("email", "ann"),
        lambda: service.hashes("email", "ann"),
    ):
        with pytest.raises(PersonalDataUnavailable):
            call()


@pytest.mark.parametrize(
    "name", ["nowhere:made", "tests.support.key_services:nothing", "tests.support.key_services:STATE", "a b", "os"]
)
def test_a_key_service_that_can_not_be_made_is_named(settings: Settings, name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"PII_KEY_SERVICE: {name} can't be used .*MODULE:CALLABLE"):
        of(settings, pii_key_service=name)


def test_there_is_one_key_service_or_none(settings: Settings, state: Path) -> None:
    assert of(settings) is None
    with pytest.raises(ConfigurationError, match="PII_KEY_SERVICE: it is set, and so is PII_KEYS"):
        of(settings, pii_key_service=NAME, pii_keys=settings.pii_keys)
