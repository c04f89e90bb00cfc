"""Reservations by senders with tokens, against senders whom nobody asks who they are."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from benchmarks.environment import Environment
from benchmarks.measure import Measure, compare, median
from benchmarks.reservations import load
from benchmarks.reservations.reserving import APP, CONNECTIONS

#: The more rounds, the less a noisy moment counts.
ROUNDS = 7

GUARDED, OPEN = 8108, 8109

ISSUER, AUDIENCE = "https://id.example", "holdfast"

#: Until long after any benchmark.
EXPIRES_AT = 4_000_000_000


class Senders:
    """Those who have tokens, and the settings of an API that believes these."""

    def __init__(self, folder: Path) -> None:
        self._key = generate_private_key(SECP256R1())
        public = folder / "public.pem"
        public.write_bytes(self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        self.settings = {
            "AUTH": "token",
            "AUTH_PUBLIC_KEY_FILE": str(public),
            "AUTH_ISSUER": ISSUER,
            "AUTH_AUDIENCE": AUDIENCE,
        }

    def token(self, subject: str, role: str, **claims: object) -> str:
        """Return a token for a sender of that name and role."""
        usual = {"iss": ISSUER, "aud": AUDIENCE, "sub": subject, "exp": EXPIRES_AT, "roles": [role]}
        return jwt.encode(usual | claims, self._key, algorithm="ES256")


def guarded(environment: Environment) -> Iterator[Measure]:
    """Reservations of a hot item with tokens, rights and limits, against AUTH=none."""
    environment.clear()
    senders = Senders(Path(environment.variables["HOLDFAST_HOME"]))
    tokens = [senders.token(f"sender-{number}", "staff") for number in range(CONNECTIONS)]
    rates: dict[int, list[float]] = {GUARDED: [], OPEN: []}
    with environment.serving(APP, OPEN), environment.serving(APP, GUARDED, **senders.settings):
        for number in range(2 * ROUNDS):
            port, bearing = _turn(number, tokens)
            rates[port].append(load.reserve(port, connections=CONNECTIONS, items=1, tokens=bearing).rate)
    yield compare(
        f"reservations/s of a hot item, {CONNECTIONS} senders with tokens",
        median(rates[GUARDED]),
        median(rates[OPEN]),
        named="AUTH=none",
        at_least=0.9,
    )


def _turn(number: int, tokens: Sequence[str]) -> tuple[int, Sequence[str]]:
    return (OPEN, ()) if number % 2 else (GUARDED, tokens)
