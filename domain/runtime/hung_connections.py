"""Cutting off connections that are used for too long at a time, because the database behind them hangs.

PostgreSQL's own time-outs need a PostgreSQL that runs. A backend that is frozen, or a server that vanished behind a
proxy, answers nothing, and a thread that waits for it would wait for ever.
"""

import os
import socket
import threading
import time
from contextlib import suppress
from typing import Any

import structlog
from sqlalchemy import Engine, event
from sqlalchemy.exc import InvalidatePoolError

#: How many times the connections in use are looked at within the time that one may be used.
LOOKS = 10

#: The thread that looks at them ends when none has been used for this time.
IDLE_SECONDS = 10

log = structlog.get_logger()


def watch(engine: Engine, seconds: float, *, checked: bool) -> None:
    """Cut off each connection of an engine that is used for longer than `seconds` at a time.

    With `checked`, a connection is tried before it is used.
    """
    watched = _Watched(engine, seconds, checked=checked)
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

    def begin(self, connection: Any, _record: Any, _proxy: Any) -> None:
        with self._changed:
            self._used_since[id(connection)] = connection, time.monotonic()
            if not self._has_thread:
                self._has_thread = True
                threading.Thread(target=self._look, name="hung-connections", daemon=True).start()
            if len(self._used_since) == 1:
                self._changed.notify()
        if self._checked:
            self._try(connection)

    def end(self, connection: Any, *_: Any) -> None:
        with self._changed:
            self._used_since.pop(id(connection), None)

    def _try(self, connection: Any) -> None:
        dialect = self._engine.dialect
        try:
            dialect.do_ping(connection)
        except dialect.loaded_dbapi.Error as error:
            self.end(connection)
            raise InvalidatePoolError from error

    def _look(self) -> None:
        while True:
            with self._changed:
                if not self._changed.wait_for(lambda: self._used_since, timeout=IDLE_SECONDS):
                    self._has_thread = False
                    return
                # Under the lock, so that no connection is closed, and its number used again, in between.
                oldest = time.monotonic() - self._seconds
                for connection, since in list(self._used_since.values()):
                    if since < oldest:
                        self._used_since.pop(id(connection))
                        _cut(connection)
            time.sleep(self._seconds / LOOKS)


def _cut(connection: Any) -> None:
    log.error(
        "database.hangs",
        backend=connection.info.backend_pid,
        message="PostgreSQL has not answered in time, so the connection is cut off. Its transaction fails. Look at the"
        " server, its disk and the network.",
    )
    with suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as duplicate:
        duplicate.shutdown(socket.SHUT_RDWR)
