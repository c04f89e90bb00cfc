"""The application."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any

from litestar import Litestar, Router
from litestar.datastructures import State
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
from api.health import examples as health_examples
from api.health import metrics
from api.health import routes as health
from api.http import openapi, problems
from api.http.decoding import MAX_BODY_BYTES
from api.http.openapi import Shown
from api.http.tracing import Tracing
from api.items import examples as items_examples
from api.items import routes as items
from api.outbox import examples as outbox_examples
from api.outbox import routes as outbox
from api.reservations import examples as reservations_examples
from api.reservations import routes as reservations
from api.reservations.schemas import render_reservation
from domain.fulfilment import load_routes
from domain.outbox import Routes, has_recorded
from domain.outbox.operations.status_cache import StatusCache
from domain.reservations import reserve
from domain.runtime import database, logs, tracing
from domain.runtime.errors import HoldfastError
from domain.runtime.metrics import registry_of
from domain.runtime.settings import Settings

#: The connections that all handlers share, except POST /reservations.
CONNECTIONS = 7

#: No statement of a handler may take longer: a slow list is refused before it delays the other requests.
STATEMENT_SECONDS = 10

#: Every handler of the API.
ROUTES: Sequence[HTTPRouteHandler] = (*items.ROUTES, *reservations.ROUTES, *outbox.ROUTES, *health.ROUTES)

#: What the OpenAPI document shows of each operation, by the name of its handler.
OPERATIONS: Mapping[str, Shown] = {
    **items_examples.OPERATIONS,
    **reservations_examples.OPERATIONS,
    **outbox_examples.OPERATIONS,
    **health_examples.OPERATIONS,
}

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
    operation_id_creator=lambda handler, *_: handler.handler_name,
)


def create_app(settings: Settings | None = None) -> Litestar:
    """Return the application with these settings, or with those of the environment. Raises ConfigurationError."""
    settings = settings or Settings.load()
    logs.configure(settings.log_level)
    tracing.start("holdfast-api")
    return assemble(settings, load_routes(settings))


def assemble(settings: Settings, routes: Routes) -> Litestar:
    """Put the application together. It connects to nothing before it is started."""
    doorbell = Doorbell(settings.broker())
    db = database.sessions(database.connect(settings, connections=CONNECTIONS, statement_seconds=STATEMENT_SECONDS))
    event.listen(db, "after_commit", partial(_wake, doorbell))
    # The writer shares its connection with nobody, so other requests never delay reservations.
    writer = database.sessions(database.connect(settings, connections=1, by_index=True))
    act = partial(reserve, render=render_reservation, routes=routes)
    group_commit = GroupCommit(writer, act, queue_limit=settings.queue_limit, committed=doorbell.wake)
    app = Litestar(
        # In a router, because handlers of the same path that are registered one by one are registered twice, and
        # then run in a thread within a thread.
        route_handlers=[Router("/", route_handlers=ROUTES)],
        lifespan=[_running(doorbell, group_commit, db, writer)],
        dependencies={"db": _given(db), "doorbell": _given(doorbell), "routes": _given(routes)},
        state=_state(settings, group_commit, db),
        exception_handlers=EXCEPTION_HANDLERS,
        before_send=[metrics.count],
        middleware=[Tracing()] if tracing.is_wanted() else [],
        request_max_body_size=MAX_BODY_BYTES,
        openapi_config=OPENAPI,
        logging_config=None,
        debug=False,
    )
    openapi.complete(app.openapi_schema, OPERATIONS)
    return app


def _wake(doorbell: Doorbell, session: Session) -> None:
    """Have a worker woken for the events that a handler has just committed."""
    if has_recorded(session):
        doorbell.wake()


def _state(settings: Settings, group_commit: GroupCommit, db: sessionmaker[Session]) -> State:
    """Return what handlers read from `request.app.state`."""
    state = {
        "group_commit": group_commit,
        "hold_lifetime": timedelta(seconds=settings.hold_seconds),
        "registry": registry_of(readings=StatusCache(db).readings),
    }
    return State(state, deep_copy=False)


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
        await asyncio.to_thread(tracing.stop)
        for db in dbs:
            db.kw["bind"].dispose()

    return running


def _given(value: object) -> Provide:
    """Inject one value, the same for every request."""

    def provide() -> Any:
        return value

    return Provide(provide, use_cache=True, sync_to_thread=False)
