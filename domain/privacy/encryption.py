"""Encrypting a guest: each row has a data key of its own, and each field is bound to its row and its name."""

import re
import secrets
import unicodedata
from dataclasses import dataclass, fields
from uuid import UUID

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from domain.privacy.key_service import KeyService
from domain.privacy.keyring import KEY_BYTES, WRONG, decrypt, encrypt
from domain.runtime.errors import GuestUnreadable
from domain.runtime.identity import new_id


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Person:
    """Who a guest is. It is shown in no message: `repr` has none of it."""

    name: str
    email: str | None = None
    telephone: str | None = None
    special_requests: str | None = None


#: The fields that are encrypted.
FIELDS = tuple(field.name for field in fields(Person))

#: What a guest is found by.
HASHES = ("email_hash", "telephone_hash")


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedGuest:
    """A guest as the table has it, without its reservation. Nothing of it can be read without the keys."""

    id: UUID
    key_id: str
    wrapped_key: bytes
    name: bytes
    email: bytes | None
    telephone: bytes | None
    special_requests: bytes | None
    email_hash: bytes | None
    telephone_hash: bytes | None


def seal(keys: KeyService, person: Person) -> SealedGuest:
    """Encrypt a person under a fresh data key. It calls a key service up to four times, one after the other."""
    row, data_key = new_id(), secrets.token_bytes(KEY_BYTES)
    given = {name: value for name in FIELDS if (value := getattr(person, name)) is not None}
    encrypted = {name: encrypt(data_key, value.encode(), _context(row, name)) for name, value in given.items()}
    return SealedGuest(
        id=row,
        key_id=keys.key_id,
        wrapped_key=keys.wrap(data_key, row.bytes),
        **(dict.fromkeys(FIELDS) | encrypted | hashes_of(keys, person)),  # type: ignore[arg-type]  # a name is given
    )


def open_guest(keys: KeyService, sealed: SealedGuest) -> Person:
    """Decrypt a guest. Raises GuestUnreadable if its key is unknown, or the row was tampered with."""
    return opened(sealed, data_key_of(keys, sealed))


def data_key_of(keys: KeyService, sealed: SealedGuest) -> bytes:
    """Return the data key of a guest. Raises GuestUnreadable."""
    return keys.unwrap(sealed.key_id, sealed.wrapped_key, sealed.id.bytes)


def opened(sealed: SealedGuest, data_key: bytes) -> Person:
    """Decrypt a guest by its data key. Raises GuestUnreadable."""
    encrypted = {name: getattr(sealed, name) for name in FIELDS}
    try:
        by = AESGCM(data_key)
        texts = {
            name: value if value is None else decrypt(by, value, _context(sealed.id, name)).decode()
            for name, value in encrypted.items()
        }
    except WRONG:
        raise GuestUnreadable(sealed.key_id) from None
    return Person(**texts)  # type: ignore[arg-type]  # a name is given


def hashes_of(keys: KeyService, person: Person) -> dict[str, bytes | None]:
    """Return the hashes by which a person is found, under the key that encrypts."""
    email, telephone = person.email, person.telephone
    return {
        "email_hash": keys.hash("email", normalised_email(email)) if email else None,
        "telephone_hash": keys.hash("telephone", normalised_telephone(telephone)) if telephone else None,
    }


def normalised_email(email: str) -> str:
    """Return an e-mail address as it is compared: without regard to case, and to how accents are composed."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", email.strip()).casefold())


def normalised_telephone(telephone: str) -> str:
    """Return a telephone number as it is compared: its digits, in any script, and the plus before them."""
    digits = "".join(str(unicodedata.decimal(sign)) for sign in telephone if sign.isdecimal())
    return f"+{digits}" if re.match(r"\W*\+", telephone) else digits


def _context(row: UUID, field: str) -> bytes:
    return row.bytes + field.encode()
