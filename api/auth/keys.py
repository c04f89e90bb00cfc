"""The public keys that tokens are verified with: from a JWKS document, or from a PEM file."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt import PyJWK
from jwt.algorithms import get_default_algorithms
from jwt.exceptions import PyJWTError

from domain.runtime.errors import ConfigurationError

#: The keys that one document may have. Identity providers publish two or three.
MOST_KEYS = 100

#: An RSA key with fewer bits can be broken. OpenSSL verifies with none that has more.
LEAST_RSA_BITS, MOST_RSA_BITS = 2_048, 16_384

#: The type of public key that each algorithm verifies with. A key never serves another algorithm, and none of these
#: algorithms has a shared secret: a public key can't be mistaken for one.
KEY_TYPES: Mapping[str, tuple[type, ...]] = {
    "RS256": (RSAPublicKey,),
    "PS256": (RSAPublicKey,),
    "ES256": (EllipticCurvePublicKey,),
    "EdDSA": (Ed25519PublicKey, Ed448PublicKey),
}

#: The algorithm by which a key of each type is read if its document names none.
USUAL: Mapping[str, str] = {"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA"}

#: How many of the entries that can't be used a message names, and the characters of a key id in it.
MOST_NAMED, NAMED_LENGTH = 5, 60


class UnusableKeys(Exception):
    """Raised when a document is no JWKS, when it has no key that can be used, and when a key is none of these."""


@dataclass(frozen=True, slots=True)
class Key:
    """A public key, and the id that tokens name it by. If its document names an algorithm, it serves that one only."""

    public: Any
    kid: str | None = None
    algorithm: str | None = None

    def serves(self, algorithm: str) -> bool:
        """Whether a token of this algorithm, one of KEY_TYPES, can be verified with it."""
        return self.algorithm in (None, algorithm) and isinstance(self.public, KEY_TYPES[algorithm])


@dataclass(frozen=True, slots=True, eq=False)
class Keys:
    """The keys of a document, and why the others in it can't be used.

    `document` is a JWKS document of the keys alone, the same for the same keys: in it are only their public parts,
    which were read, and not what else their provider says of them.
    """

    keys: Sequence[Key] = ()
    left_out: Sequence[str] = ()
    document: bytes = b'{"keys": []}'

    def __len__(self) -> int:
        return len(self.keys)

    def named(self, kid: str | None) -> Sequence[Key]:
        """Return the keys of an id, or those without one if there are none. Without an id, return all."""
        if kid is None:
            return self.keys
        return [key for key in self.keys if key.kid == kid] or [key for key in self.keys if key.kid is None]


NO_KEYS = Keys()


def read_jwks(document: bytes) -> Keys:
    """Return the keys for signatures of a JWKS document. Raises UnusableKeys if it has others only.

    Whatever else is among its entries is left out (RFC 7517 §5). A document without any entry has no keys.
    """
    entries = _entries(document)
    keys: dict[str, Key] = {}
    left_out = []
    for number, entry in enumerate(entries[:MOST_KEYS], 1):
        try:
            key = _read(entry)
            keys.setdefault(_written(key), key)
        except UnusableKeys as unusable:
            left_out.append(f"{_name(entry, number)}: {unusable}")
    if entries and not keys:
        raise UnusableKeys(f"it has no key that can be used; {'; '.join(left_out[:MOST_NAMED])}")
    if more := len(entries[MOST_KEYS:]):
        left_out.append(f"{more:,} more: only the first {MOST_KEYS} entries of a document are read")
    return Keys(tuple(keys.values()), tuple(left_out), f'{{"keys": [{", ".join(sorted(keys))}]}}'.encode())


def _entries(document: bytes) -> list[Any]:
    try:
        entries = json.loads(document)["keys"]
    except (ValueError, KeyError, TypeError, RecursionError):
        entries = None
    if not isinstance(entries, list):
        raise UnusableKeys("it is no JWKS document")
    return entries


def _read(entry: Any) -> Key:
    """Return the key of an entry. A member that is null is as one that is not there. Raises UnusableKeys."""
    if not isinstance(entry, dict):
        raise UnusableKeys("it is no object")
    members = {name: value for name, value in entry.items() if value is not None}
    _require_for_signatures(members)
    algorithm, kid = members.get("alg"), members.get("kid")
    try:
        public = PyJWK.from_dict(members, algorithm=algorithm or USUAL.get(str(members.get("kty")))).key
    except (PyJWTError, ValueError, TypeError):
        raise UnusableKeys("it can't be read as a public key of its type and algorithm") from None
    require_usable(public)
    return Key(public, kid, algorithm)


def _require_for_signatures(members: Mapping[str, Any]) -> None:
    if members.get("use", "sig") != "sig":
        raise UnusableKeys("its use is not sig, for signatures")
    operations = members.get("key_ops", ["verify"])
    if not isinstance(operations, list) or not ("verify" in operations or "d" in members):
        raise UnusableKeys("its key_ops do not have verify")
    if not isinstance(members.get("kid"), str | None):
        raise UnusableKeys("its kid is no text")
    algorithm = members.get("alg")
    if algorithm is not None and not (isinstance(algorithm, str) and algorithm in KEY_TYPES):
        raise UnusableKeys(f"its alg is none of {', '.join(KEY_TYPES)}")


def require_usable(public: Any) -> None:
    """Raise UnusableKeys unless it is the public key of an algorithm that is used here, and long enough."""
    if hasattr(public, "private_bytes"):
        raise UnusableKeys("it is a private key, which its provider must keep to itself and replace now")
    if isinstance(public, RSAPublicKey) and not LEAST_RSA_BITS <= public.key_size <= MOST_RSA_BITS:
        raise UnusableKeys(f"it has {public.key_size:,} bits, not {LEAST_RSA_BITS:,} to {MOST_RSA_BITS:,}")
    if isinstance(public, EllipticCurvePublicKey) and not isinstance(public.curve, SECP256R1):
        raise UnusableKeys(f"it is of the curve {public.curve.name}, and ES256 has P-256")
    if not any(isinstance(public, types) for types in KEY_TYPES.values()):
        raise UnusableKeys("it is of no type that is used here")


def _written(key: Key) -> str:
    """Return a key as an entry of a JWKS document, the same text for the same key."""
    name = key.algorithm or next(name for name, types in KEY_TYPES.items() if isinstance(key.public, types))
    members = get_default_algorithms()[name].to_jwk(key.public, as_dict=True)
    named = {"kid": key.kid, "alg": key.algorithm}
    return json.dumps(members | {name: value for name, value in named.items() if value is not None}, sort_keys=True)


def _name(entry: Any, number: int) -> str:
    kid = entry.get("kid") if isinstance(entry, dict) else None
    return f"entry {number}" if kid is None else f"entry {number} (kid {ascii(kid)[:NAMED_LENGTH]})"


def read_pem(path: Path) -> Keys:
    """Return the public key of a file, for tokens with any key id. Raises ConfigurationError."""
    try:
        key = Key(load_pem_public_key(path.read_bytes()))
        require_usable(key.public)
    except (OSError, ValueError, TypeError):
        raise ConfigurationError(f"AUTH_PUBLIC_KEY_FILE: {path} can't be read as a public key in PEM format.") from None
    except UnusableKeys as unusable:
        raise ConfigurationError(f"AUTH_PUBLIC_KEY_FILE: the key in {path} can't be used: {unusable}.") from None
    return Keys((key,))
