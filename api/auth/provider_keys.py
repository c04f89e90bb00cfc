"""The keys that tokens are verified with, in memory: those of an identity provider, or those of a file.

Those of a provider are stored as well, so that a process that starts while the provider is down has them.
"""

import threading
import time
from concurrent.futures import Future

import structlog

from api.auth.jwks import Provider, ProviderUnavailable, without_secrets
from api.auth.keys import NO_KEYS, Keys
from api.auth.refreshed import Refreshed
from api.auth.stored_keys import StoredKeys
from domain.runtime.settings import Settings

#: The keys of an identity provider are read again after this time, so that one that it has withdrawn serves no longer.
REFRESH_SECONDS = 300.0

#: A token that no known key verifies makes Holdfast read the keys again, at most once in this time.
SOONEST_SECONDS = 1.0

#: A token whose sender does not wait, as it has failed too often, makes Holdfast do so at most once in this time.
RARELY_SECONDS = 30.0

#: A process that starts looks for stored keys before it serves, but does not wait longer for a database that hangs.
START_SECONDS = 1.0

SERVE_ON = (
    "Tokens that are signed with the keys that were read before are let in; a token of another key is answered 503. See"
    " whether this machine reaches the identity provider at this URL, which AUTH_JWKS_URL has, and what it serves."
)

NOBODY = (
    "There are no keys from before either, so no token lets anybody in: each is answered 503. API keys are not"
    " affected. See whether this machine reaches the identity provider at this URL, which AUTH_JWKS_URL has, and what"
    " it serves."
)

WITHDRAWN = (
    "The identity provider serves a document without any key: it has withdrawn all of them. No token lets anybody in:"
    " each is answered 401. API keys are not affected. If it is not meant so, look at the identity provider; as soon as"
    " it serves a key, that one is used."
)

log = structlog.get_logger()


class FixedKeys:
    """Keys that never change: that of a file, or none if only API keys let in."""

    is_current = True
    trouble = None

    def __init__(self, keys: Keys) -> None:
        self.value = keys

    def start(self) -> None:
        """Do nothing: there is nothing to read."""

    def stop(self) -> None:
        """Do nothing: nothing is read."""

    def again(self) -> None:
        """Return nothing to wait for."""

    def again_rarely(self) -> None:
        """Do nothing: there is nothing to read."""


class ProviderKeys:
    """The keys of an identity provider, as they were last read. Safe for threads."""

    def __init__(self, settings: Settings, url: str) -> None:
        self._shown = without_secrets(url)
        self._provider = Provider(url)
        self._stored = StoredKeys(settings, url)
        self._keys: Refreshed[Keys] = Refreshed(
            "jwks", self._read, NO_KEYS, every_seconds=REFRESH_SECONDS, soonest_seconds=SOONEST_SECONDS
        )
        self._asked_at = float("-inf")
        #: Guards that stored keys never take the place of those that the provider has served to this process.
        self._lock = threading.Lock()
        self._has_read = False
        #: None before the provider was asked.
        self._is_up: bool | None = None
        self._logged: tuple[bool, bool] | None = None

    @property
    def value(self) -> Keys:
        """The keys. While their provider serves the same ones, it is the same object."""
        return self._keys.value

    @property
    def is_current(self) -> bool:
        """Whether the provider could be read the last time."""
        return self._keys.is_current

    @property
    def trouble(self) -> str | None:
        """What is wrong with the keys, in words for an operator, or None."""
        if self.value is NO_KEYS:
            return UNREAD if self._is_up is None else UNREADABLE
        if not self.value:
            return EMPTY
        return FORMER if self._is_up is False else None

    def start(self) -> None:
        """Begin to read keys, with those that are stored."""
        looking = threading.Thread(target=self._look, name="stored-jwks", daemon=True)
        looking.start()
        self._keys.start()
        looking.join(START_SECONDS)

    def stop(self) -> None:
        """Read no more keys."""
        self._keys.stop()

    def again(self) -> Future[None]:
        """Return a future that is done when the provider has been asked once more."""
        self._asked_at = time.monotonic()
        return self._keys.again()

    def again_rarely(self) -> None:
        """Have the provider asked once more if that was not done for long. Nobody waits for it."""
        if time.monotonic() - self._asked_at > RARELY_SECONDS:
            self.again()

    def _read(self) -> Keys | None:
        """Return the keys that the provider serves now, or None if it serves none that can be used."""
        try:
            keys = self._provider.read()
        except ProviderUnavailable as unavailable:
            self._is_up = False
            self._look()
            self._log_unavailable(unavailable)
            return None
        return self._adopted(keys)

    def _adopted(self, keys: Keys) -> Keys:
        with self._lock:
            before, self._has_read, self._is_up = self.value, True, True
        if before is not NO_KEYS and keys.document == before.document:
            # Tokens that were verified by them need not be verified again.
            keys = before
        self._stored.store(keys)
        self._log_read(keys, is_new=keys is not before)
        return keys

    def _look(self) -> None:
        """Take the stored keys while the provider has served none to this process."""
        if self._has_read or (stored := self._stored.find()) is None:
            return
        with self._lock:
            if not self._has_read and stored.document != self.value.document:
                self._keys.value = stored
                log.info("jwks.stored", url=self._shown, keys=len(stored))

    def _log_unavailable(self, unavailable: ProviderUnavailable) -> None:
        """Log that there are no keys to be had now, once, and again when there are none at all, or some."""
        situation = (False, bool(self.value))
        if situation != self._logged:
            advice = SERVE_ON if self.value else NOBODY
            log.warning(
                "jwks.unavailable", url=self._shown, error=f"{unavailable}", keys=len(self.value), advice=advice
            )
        self._logged = situation

    def _log_read(self, keys: Keys, *, is_new: bool) -> None:
        """Log what was read if it is new, or if it could not be read before."""
        situation = (True, bool(keys))
        if situation != self._logged and not keys:
            log.warning("jwks.withdrawn", url=self._shown, advice=WITHDRAWN)
        elif is_new or situation != self._logged:
            log.info("jwks.available", url=self._shown, keys=len(keys), left_out=list(keys.left_out))
        self._logged = situation


UNREAD = "no keys yet: the identity provider is being read"

UNREADABLE = (
    "no keys: the identity provider of AUTH_JWKS_URL could not be read since this process started, so nobody is let in"
    " with a token; API keys are not affected. The log says why (jwks.unavailable)"
)

EMPTY = (
    "no keys: the identity provider of AUTH_JWKS_URL serves a document without any, so nobody is let in with a token;"
    " API keys are not affected. Look at the identity provider"
)

FORMER = (
    "former keys: the identity provider of AUTH_JWKS_URL can't be read. Tokens of the keys from before are let in,"
    " those of others are answered 503. The log says why (jwks.unavailable)"
)
