"""What a request contains, as its idempotency key remembers it."""

import hashlib

import msgspec

#: The rule by which a hash is made. It is part of the hash, so that the hashes of two releases are never compared if
#: their rules differ. Whoever changes what is hashed, or how, changes this.
RULE = "v1"

#: How many digits of the SHA-256 are kept: with the rule before them, they fit their column.
DIGITS = 60


def hash_of(body: bytes, *path: object) -> str:
    """Return the hash of a request: of the members that its body has, and of the parameters of its path.

    The order of members and white space make no difference. Members that were not given are not part of it, so it
    stays the same if a later release knows more of them.
    """
    given = msgspec.json.decode(body) if body else {}
    canonical = msgspec.json.encode((path, given), order="sorted")
    return f"{RULE}:{hashlib.sha256(canonical).hexdigest()[:DIGITS]}"
