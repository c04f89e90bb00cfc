"""Who keeps the keys of personal data: the keyring of the settings, or a key service outside that the settings name."""

import pkgutil
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import structlog

from domain.privacy.keyring import Keyring
from domain.runtime.errors import ConfigurationError, GuestUnreadable, PersonalDataUnavailable
from domain.runtime.settings import Settings

T = TypeVar("T")

SETTING = "PII_KEY_SERVICE"

log = structlog.get_logger()


class KeyService(Protocol):
    """Whoever keeps the keys.

    A service outside may take long, and is called by several threads at a time. It is never called on the event loop,
    nor within a transaction. It has to give up by itself after some seconds. Whatever it raises, other than
    GuestUnreadable, means that it can't be reached.
    """

    @property
    def key_id(self) -> str:
        """The id of the key that encrypts: 1 to 50 letters, digits, '.', '_' and '-'."""

    @property
    def key_ids(self) -> frozenset[str]:
        """The ids of all keys."""

    def wrap(self, data_key: bytes, row: bytes) -> bytes:
        """Encrypt the data key of a row, of 32 bytes, by the key that encrypts."""

    def unwrap(self, key_id: str, wrapped: bytes, row: bytes) -> bytes:
        """Return the data key of a row that was wrapped by the key `key_id`. Raises GuestUnreadable."""

    def hash(self, purpose: str, text: str) -> bytes:
        """Return the keyed hash of a text by the key that encrypts, of 32 bytes. Other purposes have other hashes."""

    def hashes(self, purpose: str, text: str) -> Sequence[bytes]:
        """Return the keyed hashes of a text by all keys."""


def key_service_of(settings: Settings) -> KeyService | None:
    """Return who keeps the keys by the settings, or None if they have no keys. Raises ConfigurationError."""
    if not settings.pii_key_service:
        return Keyring.of(settings)
    if settings.pii_keys:
        raise ConfigurationError(f"{SETTING}: it is set, and so is PII_KEYS. Set one of them.")
    return Outside(_made(settings.pii_key_service))


class Outside:
    """A key service outside. If it can't be reached, each call raises PersonalDataUnavailable, and that is logged."""

    def __init__(self, service: KeyService) -> None:
        self._service = service

    @property
    def key_id(self) -> str:
        return _called(lambda: self._service.key_id)

    @property
    def key_ids(self) -> frozenset[str]:
        return _called(lambda: frozenset(self._service.key_ids))

    def wrap(self, data_key: bytes, row: bytes) -> bytes:
        return _called(lambda: self._service.wrap(data_key, row))

    def unwrap(self, key_id: str, wrapped: bytes, row: bytes) -> bytes:
        return _called(lambda: self._service.unwrap(key_id, wrapped, row))

    def hash(self, purpose: str, text: str) -> bytes:
        return _called(lambda: self._service.hash(purpose, text))

    def hashes(self, purpose: str, text: str) -> Sequence[bytes]:
        return _called(lambda: self._service.hashes(purpose, text))


def _called(call: Callable[[], T]) -> T:
    try:
        return call()
    except GuestUnreadable:
        raise
    except Exception as error:
        # What it says may have personal data, or a data key.
        log.error("key_service.unavailable", error=type(error).__name__, advice=f"See to the service of {SETTING}.")
        raise PersonalDataUnavailable from None


def _made(name: str) -> KeyService:
    """Return what the callable of this name returns. Raises ConfigurationError."""
    try:
        service: KeyService = pkgutil.resolve_name(name)()
    except Exception as error:
        raise ConfigurationError(
            f"{SETTING}: {name} can't be used ({type(error).__name__}: {error}); it is MODULE:CALLABLE, which is called"
            " without arguments and returns the key service"
        ) from error
    return service
