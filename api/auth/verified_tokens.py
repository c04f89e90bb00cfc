"""Tokens that were verified, which is done once for each: a signature takes as long as much of a request."""

import hashlib
import time
from dataclasses import dataclass
from typing import TypeVar

from api.auth.claims import Claims
from api.auth.keys import NO_KEYS, Keys, read_pem
from api.auth.provider_keys import FixedKeys, ProviderKeys
from api.auth.refreshed import Missing
from api.auth.tokens import NotVerified, Tokens
from domain.access import Principal
from domain.runtime.errors import KeysUnavailable, NotAuthenticated
from domain.runtime.settings import Settings

#: The tokens that are remembered, by their hashes: so many that were verified, and so many that were not.
MOST_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class _Known:
    """A principal, until when it may be believed, and the keys by which that was found out."""

    principal: Principal
    until: float
    keys: Keys


@dataclass(frozen=True, slots=True)
class _Refused:
    """Why none of these keys verifies a token."""

    keys: Keys
    reason: str
    is_key_known: bool


T = TypeVar("T")


class VerifiedTokens:
    """Checks tokens by the keys of their provider. Safe for threads."""

    def __init__(self, tokens: Tokens, keys: ProviderKeys | FixedKeys) -> None:
        self._tokens = tokens
        self._keys = keys
        self._known: dict[bytes, _Known] = {}
        self._refused: dict[bytes, _Refused] = {}

    @classmethod
    def of(cls, settings: Settings) -> "VerifiedTokens":
        """Return the check that the settings ask for. Raises ConfigurationError."""
        claims = Claims(
            roles=settings.auth_roles_claim,
            venues=settings.auth_venues_claim,
            providers=settings.auth_providers_claim,
            guest=settings.auth_guest_claim,
        )
        tokens = Tokens(
            algorithms=frozenset(settings.auth_algorithms),
            issuer=settings.auth_issuer,
            audience=settings.auth_audience,
            leeway_seconds=settings.auth_leeway_seconds,
            claims=claims,
        )
        return cls(tokens, _keys(settings))

    def start(self) -> None:
        """Begin to read keys."""
        self._keys.start()

    def stop(self) -> None:
        """Read no more keys."""
        self._keys.stop()

    @property
    def trouble(self) -> str | None:
        """What is wrong with the keys, in words for an operator, or None."""
        return self._keys.trouble

    def check(self, token: str, *, again: bool) -> Principal:
        """Return whose token this is.

        Raises NotAuthenticated, Expired, KeysUnavailable and, unless it is done again, Missing.
        """
        digest, keys = _digest(token), self._keys.value
        if principal := self._known_by(digest):
            return principal
        try:
            self._require_untried(digest, keys)
            principal, until = self._tokens.principal(token, keys)
        except NotVerified as error:
            _remember(self._refused, digest, _Refused(keys, error.reason, error.is_key_known))
            raise self._refusal(error, again=again) from None
        _remember(self._known, digest, _Known(principal, until, keys))
        return principal

    def _require_untried(self, digest: bytes, keys: Keys) -> None:
        """Raise NotVerified again if these keys were tried before: those who have waited in vain take no more time."""
        refused = self._refused.get(digest)
        if refused and refused.keys is keys:
            raise NotVerified(refused.reason, is_key_known=refused.is_key_known)

    def _refusal(self, error: NotVerified, *, again: bool) -> Exception:
        """Return what to raise for a token that none of the keys verifies."""
        read = None if again else self._keys.again()
        if read is not None:
            return Missing(read)
        self._keys.again_rarely()
        # Nobody knows whether the provider has that key by now. A wrong signature is wrong all the same.
        if not error.is_key_known and not self._keys.is_current:
            return KeysUnavailable()
        return NotAuthenticated(error.reason)

    def known(self, token: str) -> Principal | None:
        """Return whose token this is, if it was verified before."""
        return self._known_by(_digest(token))

    def _known_by(self, digest: bytes) -> Principal | None:
        known = self._known.get(digest)
        is_valid = known and known.keys is self._keys.value and known.until > time.time()
        return known.principal if known and is_valid else None


def _remember(of: dict[bytes, T], digest: bytes, value: T) -> None:
    if len(of) >= MOST_REMEMBERED:
        of.clear()
    of[digest] = value


def _digest(token: str) -> bytes:
    # A header is text of any bytes.
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()


def _keys(settings: Settings) -> ProviderKeys | FixedKeys:
    if settings.auth_jwks_url:
        return ProviderKeys(settings, settings.auth_jwks_url)
    file = settings.auth_public_key_file
    return FixedKeys(read_pem(file) if file else NO_KEYS)
