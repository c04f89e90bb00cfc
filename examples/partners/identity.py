"""An identity provider: it gives whoever asks a token of any role, and serves the key to verify it."""

import json
import os
import time
from pathlib import Path
from typing import Annotated, Any

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from jwt.algorithms import ECAlgorithm

#: A working day.
TOKEN_SECONDS = 8 * 60 * 60

KEY_ID, ALGORITHM, AUDIENCE = "partners", "ES256", "holdfast"

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class TokenRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who the token says that its bearer is."""

    subject: Name
    role: Name
    venues: tuple[Name, ...] = ()
    provider_id: Name | None = None


class Identity:
    """Signs tokens with a key that a file keeps, so that they are good after a restart."""

    def __init__(self, issuer: str, file: Path | None) -> None:
        """Without a file, the key is forgotten at the end."""
        self._issuer = issuer
        self._key = generate_private_key(SECP256R1()) if file is None else _kept(file)

    def token(self, request: TokenRequest) -> str:
        """Return a token for TOKEN_SECONDS."""
        now = int(time.time())
        claims: dict[str, Any] = {
            "iss": self._issuer,
            "aud": AUDIENCE,
            "sub": request.subject,
            "iat": now,
            "exp": now + TOKEN_SECONDS,
            "roles": [request.role],
            "venues": request.venues,
        }
        if request.provider_id:
            claims["provider_id"] = request.provider_id
        return jwt.encode(claims, self._key, algorithm=ALGORITHM, headers={"kid": KEY_ID})

    def jwks(self) -> dict[str, Any]:
        """Return the document with the public key (RFC 7517)."""
        public = json.loads(ECAlgorithm.to_jwk(self._key.public_key()))
        return {"keys": [public | {"kid": KEY_ID, "alg": ALGORITHM, "use": "sig"}]}


def _kept(file: Path) -> EllipticCurvePrivateKey:
    """Return the key of a file, which is made if it is not there."""
    if not file.exists():
        made = generate_private_key(SECP256R1())
        written = made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as new:
            new.write(written)
    key = load_pem_private_key(file.read_bytes(), password=None)
    assert isinstance(key, EllipticCurvePrivateKey), f"{file} has another kind of key"
    return key
