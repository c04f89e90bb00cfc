"""The check that a process records by the routes in force: once, before it records anything."""

import threading
from collections.abc import Callable, Iterable
from contextlib import suppress

from sqlalchemy import Engine, event
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from domain.outbox.operations import routes_in_force
from domain.outbox.routes import Routes
from domain.runtime import database
from domain.runtime.errors import ConfigurationError
from domain.runtime.identity import user_at_host
from domain.runtime.settings import Settings

#: A database that does not answer within this time counts as unreachable.
TIMEOUT_SECONDS = 5


class RoutesCheck:
    """Compares the routes of this process with those in force, as soon as the database can be reached.

    A process may start before its database. So the check is made when the process starts and, unless that succeeds,
    again at each new connection for recording. Once it has succeeded, it costs nothing.
    """

    def __init__(self, settings: Settings, routes: Routes, *, stop: Callable[[ConfigurationError], None]) -> None:
        """`stop` ends the process if other routes turn out to be in force after it has started."""
        self._settings = settings
        self._routes = routes
        self._stop = stop
        self._lock = threading.Lock()
        self._is_done = False
        self._refused: ConfigurationError | None = None

    def begin(self) -> None:
        """Check, unless the database can't be asked yet. Raises ConfigurationError."""
        with suppress(SQLAlchemyError):
            self._check()

    def guard(self, engines: Iterable[Engine]) -> None:
        """Let no connection of these engines be used before the check has succeeded."""
        for engine in engines:
            # An error gives up the connection before anybody has used it.
            event.listen(engine, "connect", self._before_use)

    def _before_use(self, *_: object) -> None:
        with self._lock:
            if self._refused is None:
                self._stop_unless_in_force()
            if self._refused is not None:
                # Requests are answered as if the database were down, until the process has ended.
                raise OperationalError("the routes in force", None, self._refused)

    def _stop_unless_in_force(self) -> None:
        try:
            self._check()
        except ConfigurationError as error:
            self._refused = error
            self._stop(error)

    def _check(self) -> None:
        if not self._is_done:
            require(self._settings, self._routes)
            self._is_done = True


def require(settings: Settings, routes: Routes) -> None:
    """Let this process record by these routes. Raises ConfigurationError if others are in force, or SQLAlchemyError."""
    engine = database.connect(
        settings, connections=1, statement_seconds=TIMEOUT_SECONDS, transaction_seconds=TIMEOUT_SECONDS
    )
    try:
        with database.sessions(engine).begin() as session:
            routes_in_force.require(session, routes, who=user_at_host())
    finally:
        engine.dispose()


def require_if_reachable(settings: Settings, routes: Routes) -> None:
    """Do what `require` does, unless the database can't be asked yet: the process checks again later."""
    with suppress(SQLAlchemyError):
        require(settings, routes)
