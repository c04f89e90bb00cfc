"""The keys of an identity provider in the database, which are there for processes that start while it is down."""

import hashlib
import threading
import time
from urllib.parse import urlsplit, urlunsplit

import structlog
from sqlalchemy.exc import SQLAlchemyError

from api.auth.keys import Keys, UnusableKeys, read_jwks
from domain.access import provider_keys
from domain.runtime import database
from domain.runtime.rounds import isolate_round
from domain.runtime.settings import Settings

#: The same keys are stored again after this time, which says that their provider still serves them.
CONFIRM_SECONDS = 60.0

#: The database has one row to read or to write. One that takes longer is in trouble.
STATEMENT_SECONDS, HANGS_SECONDS = 1, 2.0

NOT_STORED = (
    "Processes that run are not affected. If the identity provider goes down, a process that starts then may lack its"
    " present keys, and let nobody in with a token. It is tried again. Look at PostgreSQL's log for what it says of the"
    " table identity_provider_keys."
)

UNUSABLE = (
    "Somebody has changed the row in the table identity_provider_keys. It is not used, and is replaced as soon as the"
    " identity provider of AUTH_JWKS_URL can be read."
)

log = structlog.get_logger()


class StoredKeys:
    """The stored keys of one provider. Safe for threads. It keeps no connection: it is used every few minutes."""

    def __init__(self, settings: Settings, url: str) -> None:
        engine = database.connect(
            settings, connections=1, statement_seconds=STATEMENT_SECONDS, transaction_seconds=HANGS_SECONDS
        )
        self._db = database.sessions(engine)
        self._source = source_of(url)
        self._storing = threading.Lock()
        self._stored: Keys | None = None
        self._stored_at = float("-inf")
        self._has_warned = False

    def find(self) -> Keys | None:
        """Return the keys that are stored and may be believed. They are checked as those of the provider are."""
        try:
            with self._db.begin() as session:
                stored = provider_keys.find(session, self._source)
            return None if stored is None else read_jwks(stored.document.encode())
        except SQLAlchemyError:
            # Whoever needs the database finds out by themselves, and reports it.
            return None
        except UnusableKeys as unusable:
            log.warning("jwks.stored_unusable", error=f"{unusable}", advice=UNUSABLE)
            return None
        finally:
            self._db.kw["bind"].dispose()

    def store(self, keys: Keys) -> None:
        """Store keys, unless that was done a moment ago. Nobody waits for it: a thread of its own does it."""
        is_due = keys is not self._stored or time.monotonic() - self._stored_at > CONFIRM_SECONDS
        if is_due and self._storing.acquire(blocking=False):
            threading.Thread(target=self._run, args=[keys], name="store-jwks", daemon=True).start()

    def _run(self, keys: Keys) -> None:
        try:
            isolate_round(lambda: self._store(keys), thread="store-jwks", advice=NOT_STORED)
        finally:
            self._storing.release()

    def _store(self, keys: Keys) -> None:
        try:
            with self._db.begin() as session:
                provider_keys.store(session, self._source, keys.document.decode())
        except SQLAlchemyError as error:
            if not self._has_warned:
                log.warning("jwks.not_stored", error=type(error).__name__, advice=NOT_STORED)
            self._has_warned = True
        else:
            self._stored, self._stored_at, self._has_warned = keys, time.monotonic(), False
        finally:
            self._db.kw["bind"].dispose()


def source_of(url: str) -> str:
    """Return the hash of the URL of a provider. Another user or password is not another provider."""
    parts = urlsplit(url)
    return hashlib.sha256(urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])).encode()).hexdigest()
