"""The application, and the process that serves it."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from errno import EADDRNOTAVAIL
from functools import partial
from socket import AF_INET, AF_INET6
from typing import Any

from granian.constants import Interfaces
from granian.log import LogLevels
from granian.server import Server
from litestar import Litestar, Router
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.openapi import OpenAPIConfig
from sqlalchemy.exc import SQLAlchemyError

from api import document, health, items, problems, reservations
from api.bodies import MAX_BODY_BYTES
from api.doorbell import Doorbell
from api.group_commit import GroupCommit
from api.views import render_reservation
from domain import database, telemetry
from domain.errors import HoldfastError
from domain.outbox import routes
from domain.reservations import reserve
from domain.settings import Settings, refuse_to_start

#: One for the writer thread, the rest for the other doors' threads.
CONNECTIONS = 8


def create_app(settings: Settings | None = None) -> Litestar:
    """Return the application for these settings, or for those of the environment."""
    settings = settings or Settings.load()
    telemetry.configure(settings.log_level)
    db = database.sessions(database.connect(settings, connections=CONNECTIONS), routes=routes.load(settings))
    doorbell = Doorbell(settings.broker())
    group_commit = GroupCommit(
        db, partial(reserve, render=render_reservation), queue_limit=settings.queue_limit, committed=doorbell.ring
    )

    @asynccontextmanager
    async def running(_: Litestar) -> AsyncIterator[None]:
        doorbell.start()
        group_commit.start()
        yield
        await group_commit.close()
        doorbell.close()
        db.kw["bind"].dispose()

    doors = [
        items.create_item,
        items.list_items,
        items.get_item,
        items.change_item,
        reservations.make_reservation_through(group_commit, timedelta(seconds=settings.hold_seconds)),
        reservations.list_reservations,
        reservations.get_reservation,
        reservations.confirm_reservation,
        reservations.cancel_reservation,
        health.live,
        health.ready,
    ]
    app = Litestar(
        # Given one by one, doors at the same address would be registered twice, and then wrapped in a thread twice.
        route_handlers=[Router("/", route_handlers=doors)],
        lifespan=[running],
        dependencies={"db": _given(db), "doorbell": _given(doorbell)},
        exception_handlers={
            HoldfastError: problems.of_error,
            SQLAlchemyError: problems.of_database_error,
            HTTPException: problems.of_http_error,
            Exception: problems.of_bug,
        },
        request_max_body_size=MAX_BODY_BYTES,
        openapi_config=OpenAPIConfig(
            title="Holdfast",
            version="1",
            description="Reservations that never oversell.",
            path="/schema",
            use_handler_docstrings=True,
            operation_id_creator=lambda door, *_: door.handler_name,
        ),
        logging_config=None,
        debug=False,
    )
    document.complete(app.openapi_schema)
    return app


def _given(value: object) -> Provide:
    """Inject one value, the same for every request."""

    def provide() -> Any:
        return value

    return Provide(provide, use_cache=True, sync_to_thread=False)


def main() -> None:
    """Serve until SIGTERM, then finish what is in hand."""
    settings = Settings.load()
    insist_on_free(settings.host, settings.port)
    routes.load(settings)  # here as well, as what ends a process that serves only has it started again
    Server(
        "api.app:create_app",
        factory=True,
        interface=Interfaces.ASGI,
        address=settings.host,
        port=settings.port,
        workers=settings.web_processes,
        log_level=LogLevels.warning,
        respawn_failed_workers=True,
        workers_kill_timeout=10,
    ).serve()


def insist_on_free(host: str, port: int) -> None:
    """End the process if it can't listen there, or if something else does: the server would share the port."""
    with socket.socket(AF_INET6 if ":" in host else AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == EADDRNOTAVAIL:
                refuse_to_start(f"HOST: {host} is no address of this machine.")
            refuse_to_start(f"PORT: {port} can't be used ({error.strerror}). Stop what uses it, or choose another.")


if __name__ == "__main__":
    main()
