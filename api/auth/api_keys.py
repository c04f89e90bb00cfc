"""The API keys that are valid, in memory: no request waits for the database to say who has sent it."""

import time
from collections.abc import Mapping

import structlog
from sqlalchemy.exc import SQLAlchemyError

from api.auth.refreshed import Missing, Refreshed
from domain.access import Principal, api_keys
from domain.access.api_keys import ValidKey
from domain.runtime import database
from domain.runtime.errors import KeysUnavailable, NotAuthenticated
from domain.runtime.settings import Settings

#: A key that was revoked is refused after this time, and a moment more.
REFRESH_SECONDS = 2.0

#: A connection that is used for longer hangs, and is replaced. Together with the time between two readings, it leaves a
#: second of the 5 s within which a key that was revoked is refused.
HANGS_SECONDS = 1.5

#: PostgreSQL ends a statement that takes longer, and the connection can be used again.
STATEMENT_SECONDS = 1

#: A key that is not known yet is looked for, at most once in this time.
SOONEST_SECONDS = 0.5

#: While keys can't be read, those that were read before let nobody in for longer than this: one of them may have been
#: revoked since. It is as long as a withdrawn key of an identity provider may serve on.
LONGEST_SECONDS = 300.0

REFUSED = "the API key is not known, expired or revoked"

UNAVAILABLE = (
    "API keys can't be read from the database. Those that were read before serve on for"
    f" {LONGEST_SECONDS:g} s, also if they are revoked meanwhile, and then every API key is answered 503; a key that"
    " was made since is answered 503 already. Look at PostgreSQL and at the network; if other requests are served,"
    " look at its log for what it says of the table api_keys."
)

TOO_OLD = (
    f"API keys could not be read for {LONGEST_SECONDS:g} s. Any of them may have been revoked since, so every API key"
    " is answered 503 until they can be read. Look at PostgreSQL and at the network."
)

NOT_NOTED = (
    "The day of the last use that bin/api-keys list shows may be too early. Look at PostgreSQL's log for what it says"
    " of the table api_keys."
)

log = structlog.get_logger()


class ApiKeys:
    """Checks API keys. Safe for threads."""

    def __init__(self, settings: Settings) -> None:
        engine = database.connect(
            settings, connections=1, statement_seconds=STATEMENT_SECONDS, transaction_seconds=HANGS_SECONDS
        )
        self._db = database.sessions(engine)
        self._keys: Refreshed[Mapping[str, ValidKey]] = Refreshed(
            "api-keys", self._read, {}, every_seconds=REFRESH_SECONDS, soonest_seconds=SOONEST_SECONDS
        )
        self._used: set[str] = set()
        self._is_available = True
        self._are_too_old = False
        self._notes_uses = True

    def start(self) -> None:
        """Begin to read keys."""
        self._keys.start()

    def stop(self) -> None:
        """Read no more keys, and disconnect."""
        self._keys.stop()
        self._db.kw["bind"].dispose()

    def check(self, key: str, *, again: bool) -> Principal:
        """Return whose key this is.

        Raises NotAuthenticated, KeysUnavailable and, unless it is done again, Missing.
        """
        parts = api_keys.parts_of(key)
        if parts is None:
            raise NotAuthenticated(REFUSED)
        key_id, secret = parts
        found = self._keys.value.get(key_id)
        if found is None and not again:
            raise Missing(self._keys.again())
        if found is None and not self._keys.is_current:
            raise KeysUnavailable
        if found is None or not found.opens_with(secret):
            raise NotAuthenticated(REFUSED)
        self._require_age()
        self._used.add(key_id)
        return found.principal

    def known(self, key: str) -> Principal | None:
        """Return whose key this is, if it was read before."""
        parts = api_keys.parts_of(key)
        found = self._keys.value.get(parts[0]) if parts else None
        return found.principal if parts and found and found.opens_with(parts[1]) else None

    def _require_age(self) -> None:
        """Raise KeysUnavailable if the keys were read too long ago to let anybody in. That is logged once."""
        are_too_old = time.monotonic() - self._keys.read_at > LONGEST_SECONDS
        if are_too_old and not self._are_too_old:
            log.error("api_keys.too_old", advice=TOO_OLD)
        self._are_too_old = are_too_old
        if are_too_old:
            raise KeysUnavailable

    def _read(self) -> Mapping[str, ValidKey] | None:
        """Return the keys that are valid, or None if the database is in trouble. It is logged when that changes."""
        try:
            with self._db.begin() as session:
                keys = api_keys.read_valid(session)
        except SQLAlchemyError as error:
            if self._is_available:
                log.warning("api_keys.unavailable", error=type(error).__name__, advice=UNAVAILABLE)
            self._is_available = False
            return None
        if not self._is_available:
            log.info("api_keys.available", keys=len(keys))
        self._is_available = True
        self._note_used()
        return keys

    def _note_used(self) -> None:
        """Note which keys were used. Nothing depends on it, so a database that takes no changes is no trouble."""
        used, self._used = self._used, set()
        try:
            if used:
                with self._db.begin() as session:
                    api_keys.note_used(session, used)
                self._notes_uses = True
        except SQLAlchemyError as error:
            if self._notes_uses:
                log.warning("api_keys.use_not_noted", error=type(error).__name__, advice=NOT_NOTED)
            self._notes_uses = False
