"""Privacy: the personal data of guests, encrypted in a table of its own."""

from domain.privacy import guests, key_check
from domain.privacy.encryption import Person, SealedGuest, open_guest, seal
from domain.privacy.erasure import forget
from domain.privacy.key_service import KeyService, key_service_of
from domain.privacy.keyring import Keyring
from domain.privacy.rotation import Rotated, rotate

__all__ = [
    "KeyService",
    "Keyring",
    "Person",
    "Rotated",
    "SealedGuest",
    "forget",
    "guests",
    "key_check",
    "key_service_of",
    "open_guest",
    "rotate",
    "seal",
]
