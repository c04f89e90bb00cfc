"""The keys of personal data that the settings have. They wrap data keys, and hash what guests are found by."""

import base64
import binascii
import hmac
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from domain.runtime.errors import ConfigurationError, GuestUnreadable
from domain.runtime.settings import Settings

KEY_BYTES = 32

#: The nonce that AES-GCM is made for. It is random: a key that encrypts fewer than 2^32 texts repeats none.
NONCE_BYTES = 12

#: The ids of keys are kept with each guest, and are shown to operators.
_ID = re.compile(r"[A-Za-z0-9._-]{1,50}")

#: How a key is written, for messages.
FORM = "it is ID:KEY, where KEY is 32 bytes in base64; several are separated by commas, and the first one encrypts"


#: What is raised for a text that was not encrypted by this key and for this context, or is too short for any.
WRONG = (InvalidTag, ValueError)


SETTING = "PII_KEYS"


class Keyring:
    """The keys of the setting PII_KEYS, in the memory of this process."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        """The first key encrypts. All of them decrypt."""
        self.key_id = next(iter(keys))
        self.key_ids = frozenset(keys)
        self._keys = keys
        self._wrapping = {key_id: AESGCM(key) for key_id, key in keys.items()}
        self._hashing: dict[tuple[str, str], bytes] = {}

    @classmethod
    def of(cls, settings: Settings) -> Self | None:
        """Return the keyring of the settings, or None if they have no keys. Raises ConfigurationError."""
        written = settings.pii_keys.get_secret_value() if settings.pii_keys else ""
        return cls.read(written) if written else None

    @classmethod
    def read(cls, written: str) -> Self:
        """Return the keyring that is written like this in the setting PII_KEYS. Raises ConfigurationError.

        No message has a part of what is written, which is secret.
        """
        keys: dict[str, bytes] = {}
        for place, (key_id, key) in enumerate(_read(written), start=1):
            if not _ID.fullmatch(key_id):
                raise ConfigurationError(
                    f"{SETTING}: the id of key {place} can't be used; it has 1 to 50 letters, digits, '.', '_' and '-'."
                    f" A key is written like this: {FORM}"
                )
            if len(key) != KEY_BYTES:
                raise ConfigurationError(f"{SETTING}: key {place} can't be read; {FORM}")
            if key_id in keys or key in keys.values():
                raise ConfigurationError(f"{SETTING}: key {place} has the id or the bytes of another one")
            keys[key_id] = key
        if not keys:
            raise ConfigurationError(f"{SETTING}: it has no key; {FORM}")
        return cls(keys)

    def wrap(self, data_key: bytes, row: bytes) -> bytes:
        """See KeyService, also for the methods below."""
        return _encrypt(self._wrapping[self.key_id], data_key, _context(row, self.key_id))

    def unwrap(self, key_id: str, wrapped: bytes, row: bytes) -> bytes:
        if key_id not in self._wrapping:
            raise GuestUnreadable(key_id)
        try:
            return decrypt(self._wrapping[key_id], wrapped, _context(row, key_id))
        except WRONG:
            raise GuestUnreadable(key_id) from None

    def hash(self, purpose: str, text: str) -> bytes:
        return self._hash(self.key_id, purpose, text)

    def hashes(self, purpose: str, text: str) -> Sequence[bytes]:
        return [self._hash(key_id, purpose, text) for key_id in self._keys]

    def _hash(self, key_id: str, purpose: str, text: str) -> bytes:
        derived = self._hashing.get((key_id, purpose))
        if derived is None:
            info = f"holdfast {purpose}".encode()
            derived = HKDF(SHA256(), KEY_BYTES, salt=None, info=info).derive(self._keys[key_id])
            self._hashing[key_id, purpose] = derived
        return hmac.digest(derived, text.encode(), "sha256")


def new_key(key_id: str) -> str:
    """Return a fresh key as the settings have it."""
    return f"{key_id}:{base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()}"


def encrypt(key: bytes, text: bytes, context: bytes) -> bytes:
    """Encrypt a text, so that it can be decrypted in this context alone. The nonce comes before what is encrypted."""
    return _encrypt(AESGCM(key), text, context)


def decrypt(by: AESGCM, encrypted: bytes, context: bytes) -> bytes:
    """Decrypt a text. Raises one of WRONG if it, the key or the context is another one."""
    return by.decrypt(encrypted[:NONCE_BYTES], encrypted[NONCE_BYTES:], context)


def _encrypt(by: AESGCM, text: bytes, context: bytes) -> bytes:
    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce + by.encrypt(nonce, text, context)


def _context(row: bytes, key_id: str) -> bytes:
    return row + key_id.encode()


def _read(written: str) -> Iterator[tuple[str, bytes]]:
    """Yield the id and the bytes of each key. What is no base64 has no bytes."""
    for one in written.replace("\n", ",").split(","):
        if one.strip():
            key_id, _, key = one.strip().partition(":")
            try:
                yield key_id, base64.b64decode(key, validate=True)
            except (binascii.Error, ValueError):
                yield key_id, b""
