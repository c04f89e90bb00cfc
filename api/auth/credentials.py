"""Credentials: what a request brings along to say who has sent it, a token or an API key."""

from api.auth.api_keys import ApiKeys
from api.auth.verified_tokens import VerifiedTokens
from domain.access import Principal
from domain.access.api_keys import PREFIX
from domain.runtime.errors import NotAuthenticated
from domain.runtime.settings import Settings


class Credentials:
    """Checks the header `Authorization` of requests. Safe for threads."""

    def __init__(self, tokens: VerifiedTokens, api_keys: ApiKeys) -> None:
        self._tokens = tokens
        self._api_keys = api_keys

    @classmethod
    def of(cls, settings: Settings) -> "Credentials | None":
        """Return the check that the settings ask for, None if they ask for none. Raises ConfigurationError."""
        return None if settings.auth == "none" else cls(VerifiedTokens.of(settings), ApiKeys(settings))

    def start(self) -> None:
        """Begin to read what credentials are checked by."""
        self._tokens.start()
        self._api_keys.start()

    def stop(self) -> None:
        """Read no more."""
        self._tokens.stop()
        self._api_keys.stop()

    @property
    def trouble(self) -> str | None:
        """What is wrong with the keys of tokens, in words for an operator, or None."""
        return self._tokens.trouble

    def check(self, authorization: str, *, again: bool = False) -> Principal:
        """Return whose credentials these are.

        Raises NotAuthenticated, Expired, KeysUnavailable and, unless it is done again, Missing.
        """
        credential = _credential_in(authorization)
        return self._checks(credential).check(credential, again=again)

    def known(self, authorization: str) -> Principal | None:
        """Return whose credentials these are, if that was found out before. It takes only a moment."""
        try:
            credential = _credential_in(authorization)
        except NotAuthenticated:
            return None
        return self._checks(credential).known(credential)

    def _checks(self, credential: str) -> ApiKeys | VerifiedTokens:
        return self._api_keys if credential.startswith(PREFIX) else self._tokens


def _credential_in(authorization: str) -> str:
    """Return the token or the API key of a header. Raises NotAuthenticated."""
    scheme, _, credential = authorization.partition(" ")
    if scheme.lower() != "bearer" or not credential.strip() or not credential.isascii():
        raise NotAuthenticated("Authorization has no bearer token")
    return credential.strip()
