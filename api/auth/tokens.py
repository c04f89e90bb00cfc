"""Tokens: JSON Web Tokens of an identity provider, verified and read as principals (RFC 7519, RFC 8725)."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import jwt
from jwt.exceptions import (
    ExpiredSignatureError,
    ImmatureSignatureError,
    InvalidAudienceError,
    InvalidIssuerError,
    InvalidSignatureError,
    MissingRequiredClaimError,
    PyJWTError,
)

from api.auth.claims import Claims
from api.auth.keys import Key, Keys
from domain.access import Principal
from domain.runtime.errors import NotAuthenticated

#: What is wrong with a token that can't be used, by the error of the library. Others are `not a valid token`.
REASONS: Mapping[type[PyJWTError], str] = {
    ExpiredSignatureError: "the token has expired",
    ImmatureSignatureError: "the token is not valid yet",
    InvalidAudienceError: "the token is for another audience",
    InvalidIssuerError: "the token is of another issuer",
}

UNKNOWN_KEY = "the key that the token is signed with is not known"
ANOTHER_ALGORITHM = "the key of the token is not for its algorithm"
WRONG_SIGNATURE = "the signature of the token is wrong"

#: The keys that one token is tried with, each of which takes about as long as a third of a request. A provider that
#: gives its keys no ids, or one id, has the former, the present and the next one.
MOST_TRIED = 4


class NotVerified(Exception):
    """Raised when no key that is known verifies a token. Its provider may have another one by now.

    `is_key_known` is whether the token names a key that is known: then it is most likely wrong.
    """

    def __init__(self, reason: str, *, is_key_known: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.is_key_known = is_key_known


class Expired(Exception):
    """Raised for a token that was good once. `sender` is whose it was: nobody else is to blame for it."""

    def __init__(self, sender: str) -> None:
        super().__init__(REASONS[ExpiredSignatureError])
        self.sender = sender


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """How tokens are verified. A token must have an expiry, a subject and, where they are set, issuer and audience."""

    algorithms: frozenset[str]
    issuer: str | None
    audience: str | None
    leeway_seconds: float
    claims: Claims

    def principal(self, token: str, keys: Keys) -> tuple[Principal, float]:
        """Return whose token this is, and until when it may be believed, in seconds since the epoch.

        Raises NotVerified, NotAuthenticated, Expired.
        """
        try:
            claims = self._verified(token, keys)
            until = float(claims["exp"]) + self.leeway_seconds
        except PyJWTError as error:
            raise _refusal(error, token) from None
        # Of a document that is no JSON, of nested JSON, or of numbers that no clock has.
        except (ValueError, TypeError, OverflowError, RecursionError):
            raise NotAuthenticated("it is not a valid token") from None
        return self.claims.principal(claims), until

    def _verified(self, token: str, keys: Keys) -> Mapping[str, Any]:
        """Return the claims of a token, which one of the keys verifies."""
        header: Mapping[str, Any] = jwt.get_unverified_header(token)
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in self.algorithms:
            raise NotAuthenticated("the algorithm of the token is not one of those that are accepted")
        for key in _serving(algorithm, keys, kid)[:MOST_TRIED]:
            with suppress(InvalidSignatureError):
                return self._claims(token, algorithm, key)
        raise NotVerified(WRONG_SIGNATURE, is_key_known=kid is not None and any(key.kid == kid for key in keys.keys))

    def _claims(self, token: str, algorithm: str, key: Key) -> Mapping[str, Any]:
        claims: Mapping[str, Any] = jwt.decode(
            token,
            key.public,
            algorithms=[algorithm],
            issuer=self.issuer,
            audience=self.audience,
            leeway=self.leeway_seconds,
            options={"require": ["exp", "sub"], "verify_aud": self.audience is not None},
        )
        return claims


def _serving(algorithm: str, keys: Keys, kid: str | None) -> Sequence[Key]:
    """Return the keys that a token may be signed with, at least one. Raises NotVerified."""
    named = keys.named(kid)
    serving = [key for key in named if key.serves(algorithm)]
    if not named or (kid is None and not serving):
        raise NotVerified(UNKNOWN_KEY, is_key_known=False)
    if not serving:
        raise NotVerified(ANOTHER_ALGORITHM, is_key_known=True)
    return serving


def _refusal(error: PyJWTError, token: str) -> NotAuthenticated | Expired:
    if isinstance(error, MissingRequiredClaimError):
        return NotAuthenticated(f"the token has no claim {error.claim}")
    if isinstance(error, ExpiredSignatureError):
        # Its signature was verified before its time was looked at.
        return Expired(str(jwt.decode(token, options={"verify_signature": False}).get("sub")))
    return NotAuthenticated(REASONS.get(type(error), "it is not a valid token"))
