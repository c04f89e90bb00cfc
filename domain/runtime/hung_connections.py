"""Cutting off connections that are used for too long at a time, because the database behind them hangs.

PostgreSQL's own time-outs need a PostgreSQL that runs. A backend that is frozen, or a server that vanished behind a
proxy, answers nothing, and a thread that waits for it would wait for ever.
"""

import os
import signal
import socket
import threading
import time
from contextlib import suppress
from typing import Any

import psycopg
import structlog
from sqlalchemy import Engine, event
from sqlalchemy.exc import InvalidatePoolError

from domain.runtime.rounds import isolate_round

#: How many times the connections in use are looked at within the time that one may be used.
LOOKS = 10

#: The thread that looks at them ends when none has been used for this time.
IDLE_SECONDS = 10

#: What notes in the record of a connection that it was not used before.
_FRESH = "holdfast_fresh"

HANGS = (
    "PostgreSQL has not answered in time, so the connection is cut off. Its transaction fails. Look at the server, its"
    " disk and the network."
)

UNEXPECTED = (
    "Connections that hang were not looked for this time; they are the next time. If this continues, a request may wait"
    " for a database that hangs: report the error."
)

log = structlog.get_logger()


def watch(engine: Engine, seconds: float, *, checked: bool) -> None:
    """Cut off each connection of an engine that is used for longer than `seconds` at a time.

    With `checked`, a connection that was used before is tried before it is used again.
    """
    watched = _Watched(engine, seconds, checked=checked)
    # Before SQLAlchemy's own listener, which asks a database for its version.
    event.listen(engine, "connect", watched.begin_fresh, insert=True)
    event.listen(engine, "checkout", watched.begin)
    for name in ("checkin", "invalidate", "close"):
        event.listen(engine, name, watched.end)


class _Watched:
    """The connections of one engine that are in use, and a thread that looks at them while there are any."""

    def __init__(self, engine: Engine, seconds: float, *, checked: bool) -> None:
        self._engine = engine
        self._seconds = seconds
        self._checked = checked
        self._used_since: dict[int, tuple[Any, float]] = {}
        self._changed = threading.Condition()
        self._has_thread = False

    def begin_fresh(self, connection: Any, record: Any) -> None:
        record.info[_FRESH] = True
        self._note(connection)

    def begin(self, connection: Any, record: Any, _proxy: Any) -> None:
        self._note(connection)
        if not record.info.pop(_FRESH, False) and self._checked:
            self._try(connection)

    def end(self, connection: Any, *_: Any) -> None:
        with self._changed:
            self._used_since.pop(id(connection), None)

    def _note(self, connection: Any) -> None:
        with self._changed:
            self._used_since[id(connection)] = connection, time.monotonic()
            if not self._has_thread:
                self._has_thread = True
                _start(threading.Thread(target=self._look, name="hung-connections", daemon=True))
            if len(self._used_since) == 1:
                self._changed.notify()

    def _try(self, connection: Any) -> None:
        dialect = self._engine.dialect
        try:
            dialect.do_ping(connection)
        except dialect.loaded_dbapi.Error as error:
            self.end(connection)
            raise InvalidatePoolError from error

    def _look(self) -> None:
        while self._are_some_used():
            isolate_round(self._cut_and_log, thread="hung-connections", advice=UNEXPECTED)
            time.sleep(self._seconds / LOOKS)

    def _cut_and_log(self) -> None:
        for backend in self._cut_hung():
            log.error("database.hangs", backend=backend, message=HANGS)

    def _are_some_used(self) -> bool:
        """Wait until connections are used. Return False if none is for a while: then the thread ends."""
        with self._changed:
            self._has_thread = self._changed.wait_for(lambda: len(self._used_since) > 0, timeout=IDLE_SECONDS)
            return self._has_thread

    def _cut_hung(self) -> list[int]:
        """Cut off the connections that have been used for too long. Return the ids of their backends."""
        oldest = time.monotonic() - self._seconds
        cut = []
        # Under the lock, so that no connection is closed, and its number used again, in between.
        with self._changed:
            for connection, since in list(self._used_since.values()):
                if since < oldest:
                    self._used_since.pop(id(connection))
                    # It has no socket any more if it was closed or lost meanwhile.
                    with suppress(OSError, psycopg.Error):
                        backend = connection.info.backend_pid
                        _shut(connection)
                        cut.append(backend)
        return cut


def _start(thread: threading.Thread) -> None:
    """Start a thread that never takes a signal: one that the main thread waits for would end the process there."""
    former = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


def _shut(connection: Any) -> None:
    with socket.socket(fileno=os.dup(connection.fileno())) as duplicate:
        duplicate.shutdown(socket.SHUT_RDWR)
