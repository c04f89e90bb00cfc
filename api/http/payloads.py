"""What a request contains, as its idempotency key remembers it."""

import hashlib
from collections.abc import Sequence

import msgspec

from domain.idempotency import KEY_DIGITS
from domain.privacy import KeyService

#: The rule by which a hash is made. It is part of the hash, so that the hashes of two releases are never compared if
#: their rules differ. Whoever changes what is hashed, or how, changes this.
RULE = "v1"

#: How many digits of the SHA-256 are kept: with the rule before them, they fit their column.
DIGITS = 60

#: The digits of the hash of a request with personal data: without these data, and of them.
PLAIN_DIGITS, KEYED_DIGITS = 30, 23


def hash_of(body: bytes, *path: object) -> str:
    """Return the hash of a request: of the members that its body has, and of the parameters of its path.

    The order of members and white space make no difference. Members that were not given are not part of it, so it
    stays the same if a later release knows more of them.
    """
    given = msgspec.json.decode(body) if body else {}
    return f"{RULE}:{_sha256(_canonical((path, given)))[:DIGITS]}"


def private_hash_of(body: bytes, keys: KeyService, within: str | Sequence[str] | None, *path: object) -> str:
    """Return the hash of a request with personal data: those of the whole body, of one member, or in several.

    They are hashed by a key, so that nobody who guesses them can find out by the hash whether a guess is right. Which
    of them are given is hashed with the rest.
    """
    given = msgspec.json.decode(body)
    private = given
    if isinstance(within, str):
        private = given.pop(within)
    elif within is not None:
        private = {name: given.pop(name) for name in within if name in given}
    others = {} if within is None else given
    plain = _sha256(_canonical((path, others, sorted(private))))
    keyed = keys.hash("request", _canonical(private).decode()).hex()
    key = _sha256(keys.key_id.encode())
    return f"{RULE}:{plain[:PLAIN_DIGITS]}#{key[:KEY_DIGITS]}{keyed[:KEYED_DIGITS]}"


def _canonical(given: object) -> bytes:
    return msgspec.json.encode(given, order="sorted")


def _sha256(hashed: bytes) -> str:
    return hashlib.sha256(hashed).hexdigest()
