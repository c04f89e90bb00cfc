"""The application."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any

from litestar import Litestar, Router
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.types import ExceptionHandlersMap
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from api.doorbell import Doorbell
from api.group_commit import GroupCommit
from api.health.routes import metrics, routes
from api.http import openapi, problems
from api.http.decoding import MAX_BODY_BYTES
from api.http.tracing import Tracing
from api.items.routes import routes
from api.outbox.routes import routes as operators
from api.reservations.routes import routes
from api.reservations.schemas import render_reservation
from domain import outbox
from domain.outbox import routes_file
from domain.outbox.operations.status_cache import Watch
from domain.reservations import reserve
from domain.runtime import database, telemetry
from domain.runtime.errors import HoldfastError
from domain.runtime.settings import Settings

#: What the doors other than POST /reservations have between them.
CONNECTIONS = 7

#: No door's statement may take longer: a slow list is refused before it holds up the others.
STATEMENT_SECONDS = 10


def create_app(settings: Settings | None = None) -> Litestar:
    """Return the application for these settings, or for those of the environment."""
    settings = settings or Settings.load()
    telemetry.configure(settings.log_level)
    telemetry.start_tracing("holdfast-api")
    wanted, doorbell = routes_file.load(settings), Doorbell(settings.broker())
    doors = database.connect(settings, connections=CONNECTIONS, statement_seconds=STATEMENT_SECONDS)
    db = database.sessions(doors, routes=wanted)
    event.listen(db, "after_commit", partial(_ring, doorbell))
    # The writer shares its connection with nobody: whatever the doors do, reserving goes on.
    writer = database.sessions(database.connect(settings, connections=1, by_index=True), routes=wanted)
    group_commit = GroupCommit(
        writer, partial(reserve, render=render_reservation), queue_limit=settings.queue_limit, committed=doorbell.ring
    )
    app = Litestar(
        # Given one by one, doors at the same address would be registered twice, and then wrapped in a thread twice.
        route_handlers=[Router("/", route_handlers=[*_doors(group_commit, settings), metrics.show(Watch(db))])],
        lifespan=[_running(doorbell, group_commit, db, writer)],
        dependencies={"db": _given(db), "doorbell": _given(doorbell)},
        exception_handlers=EXCEPTION_HANDLERS,
        before_send=[metrics.count],
        middleware=[Tracing()] if telemetry.wants_tracing() else [],
        request_max_body_size=MAX_BODY_BYTES,
        openapi_config=OPENAPI,
        logging_config=None,
        debug=False,
    )
    openapi.complete(app.openapi_schema)
    return app


EXCEPTION_HANDLERS: ExceptionHandlersMap = {
    HoldfastError: problems.of_error,
    SQLAlchemyError: problems.of_database_error,
    HTTPException: problems.of_http_error,
    Exception: problems.of_bug,
}

OPENAPI = OpenAPIConfig(
    title="Holdfast",
    version="1",
    description="Reservations that never oversell.",
    path="/schema",
    use_handler_docstrings=True,
    operation_id_creator=lambda door, *_: door.handler_name,
)


def _ring(doorbell: Doorbell, session: Session) -> None:
    """Have a worker woken for what a door has just committed."""
    if outbox.has_recorded(session):
        doorbell.ring()


def _doors(group_commit: GroupCommit, settings: Settings) -> list[HTTPRouteHandler]:
    return [
        routes.create_item,
        routes.list_items,
        routes.get_item,
        routes.change_item,
        routes.make_reservation_through(group_commit, timedelta(seconds=settings.hold_seconds)),
        routes.list_reservations,
        routes.get_reservation,
        routes.confirm_reservation,
        routes.cancel_reservation,
        operators.list_destinations,
        operators.pause_destination,
        operators.resume_destination,
        operators.probe_destination,
        operators.list_dead_letters,
        operators.group_dead_letters,
        operators.replay_dead_letters,
        operators.discard_dead_letters,
        operators.replay_delivered,
        operators.explain_delivery,
        routes.live,
        routes.ready,
    ]


def _running(
    doorbell: Doorbell, group_commit: GroupCommit, *dbs: sessionmaker[Session]
) -> Callable[[Litestar], AbstractAsyncContextManager[None]]:
    """Return what starts and stops the threads beside the event loop."""

    @asynccontextmanager
    async def running(_: Litestar) -> AsyncIterator[None]:
        doorbell.start()
        group_commit.start()
        yield
        await group_commit.close()
        doorbell.close()
        await asyncio.to_thread(telemetry.stop_tracing)
        for db in dbs:
            db.kw["bind"].dispose()

    return running


def _given(value: object) -> Provide:
    """Inject one value, the same for every request."""

    def provide() -> Any:
        return value

    return Provide(provide, use_cache=True, sync_to_thread=False)
