"""An identity provider: it signs tokens, and serves its keys over HTTP, in whatever state a test wants it."""

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import get_default_algorithms
from jwt.api_jws import PyJWS

ISSUER, AUDIENCE = "https://id.example", "holdfast"

#: How a private key is made for each algorithm.
MAKERS = {
    "RS256": lambda: rsa.generate_private_key(65_537, 2_048),
    "PS256": lambda: rsa.generate_private_key(65_537, 2_048),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
}


@dataclass(frozen=True)
class SigningKey:
    """A private key, with its id and algorithm."""

    kid: str
    algorithm: str
    private: Any

    @classmethod
    def new(cls, kid: str = "key-1", algorithm: str = "ES256") -> "SigningKey":
        return cls(kid, algorithm, MAKERS[algorithm]())

    def jwk(self) -> dict[str, Any]:
        """Return the public key as its document has it."""
        public: dict[str, Any] = json.loads(get_default_algorithms()[self.algorithm].to_jwk(self.private.public_key()))
        return public | {"kid": self.kid, "alg": self.algorithm, "use": "sig"}

    def token(self, *roles: str, headers: dict[str, Any] | None = None, **claims: Any) -> str:
        """Return a token for an hour with these roles. A claim or a header that is None is left out."""
        now = int(time.time())
        usual = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "iat": now, "exp": now + 3_600, "roles": list(roles)}
        given = {name: value for name, value in (usual | claims).items() if value is not None}
        named = {name: value for name, value in ({"kid": self.kid} | (headers or {})).items() if value is not None}
        return jwt.encode(given, self.private, algorithm=self.algorithm, headers=named)


@dataclass
class IdentityProvider:
    """What its JWKS endpoint answers, and how often it was asked."""

    keys: Sequence[SigningKey] = ()
    status: int = 200
    body: bytes | None = None
    delay_seconds: float = 0.0
    asked: int = 0
    port: int = 0
    released: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/jwks.json"

    def document(self) -> bytes:
        return json.dumps({"keys": [key.jwk() for key in self.keys]}).encode() if self.body is None else self.body


@contextmanager
def an_identity_provider(*keys: SigningKey) -> Iterator[IdentityProvider]:
    """Serve these keys until the block ends."""
    provider = IdentityProvider(keys)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            provider.asked += 1
            provider.released.wait(provider.delay_seconds)
            body = provider.document()
            self.send_response(provider.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        provider.port = server.server_port
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield provider
        finally:
            provider.released.set()
            server.shutdown()


def tampered(token: str, **claims: object) -> str:
    head, payload, signature = token.split(".")
    changed = json.loads(base64.urlsafe_b64decode(payload + "==")) | claims
    return ".".join([head, base64.urlsafe_b64encode(json.dumps(changed).encode()).decode().rstrip("="), signature])


def signed_with_public_key(key: SigningKey) -> str:
    """Return a token that is signed by HS256, with the public key as the secret."""
    public = key.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    claims = jwt.decode(key.token("admin"), options={"verify_signature": False})

    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    signed = f"{part({'alg': 'HS256', 'kid': key.kid, 'typ': 'JWT'})}.{part(claims)}"
    digest = hmac.new(public, signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"


def unchecked(key: SigningKey, **claims: Any) -> str:
    """Return a signed token with claims that the library would refuse to write."""
    now = int(time.time())
    usual = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "iat": now, "exp": now + 3_600, "roles": ["admin"]}
    signed: str = PyJWS().encode(
        json.dumps(usual | claims).encode(), key.private, algorithm=key.algorithm, headers={"kid": key.kid}
    )
    return signed


def bad_tokens(key: SigningKey) -> dict[str, str]:
    """Return tokens that let nobody in, by what is wrong with them."""
    claims = jwt.decode(key.token("admin"), options={"verify_signature": False})
    now = int(time.time())
    return {
        "expired": key.token("admin", exp=now - 61),
        "not valid yet": key.token("admin", nbf=now + 3_600),
        "another audience": key.token("admin", aud="other"),
        "another issuer": key.token("admin", iss="https://evil.example"),
        "without audience": key.token("admin", aud=None),
        "without issuer": key.token("admin", iss=None),
        "without expiry": key.token("admin", exp=None),
        "without subject": key.token("admin", sub=None),
        "an unknown key": SigningKey.new("key-9").token("admin"),
        "another key of the same id": SigningKey.new(key.kid).token("admin"),
        "no signature": jwt.encode(claims, "", algorithm="none", headers={"kid": key.kid}),
        "signed with the public key": signed_with_public_key(key),
        "tampered": tampered(key.token("guest"), roles=["admin"]),
        "no token": "x",
        "empty parts": "..",
        "roles of the wrong type": key.token(roles={"admin": True}),
        "a subject of the wrong type": key.token("admin", sub=17),
        "an expiry of the wrong type": key.token("admin", exp="tomorrow"),
        "an expiry beyond all clocks": key.token("admin", exp=10**400),
        "a subject with a NUL": key.token("admin", sub="a\0b"),
        "a long subject": key.token("admin", sub="a" * 201),
    }
