"""The application."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any

from litestar import Litestar, Request, Response, Router
from litestar.datastructures import State
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.types import ExceptionHandlersMap, Scope
from sqlalchemy.orm import Session, sessionmaker

from api.audit import examples as audit_examples
from api.audit import routes as audit
from api.auth import operations
from api.auth.authentication import Authentication, reach_in
from api.auth.edge_operations import EdgeOperations
from api.auth.gate import Gate
from api.auth.operations import operation_of
from api.bookings import examples as bookings_examples
from api.bookings import routes as bookings
from api.bookings.venues import Venues
from api.bookings.waiting import Waiting
from api.bulkheads import BULKHEADS, Bulkhead, ClientBulkhead, recording_engines
from api.calendars import examples as calendars_examples
from api.calendars import routes as calendars
from api.calendars.cache import Cache
from api.doorbell import Doorbell
from api.feed import examples as feed_examples
from api.feed import routes as feed
from api.feed.streams import Streams
from api.feed.tail import Tail
from api.group_commit import GroupCommit
from api.group_commit.writers import connect_writers
from api.health import examples as health_examples
from api.health import metrics
from api.health import routes as health
from api.health.exposition import Exposition
from api.http import methods, openapi, problems, queries
from api.http.asgi import Application
from api.http.edge.cross_origin import CrossOrigin
from api.http.headers import principal_of, require_key
from api.http.limits import MAX_BODY_BYTES
from api.http.openapi import Shown
from api.http.tracing import Tracing
from api.items import examples as items_examples
from api.items import routes as items
from api.outbox import examples as outbox_examples
from api.outbox import routes as outbox
from api.personal_data import PersonalData
from api.providers import examples as providers_examples
from api.providers import routes as providers
from api.reference import routes as reference
from api.reference import viewer
from api.reservations import examples as reservations_examples
from api.reservations import routes as reservations
from api.reservations.metadata import MetadataSchema
from api.stopping import before_stopping
from domain.fulfilment import load_routes
from domain.outbox import Routes
from domain.outbox.operations.routes_check import RoutesCheck
from domain.outbox.operations.status_cache import StatusCache
from domain.privacy import key_service_of
from domain.reservations import reserve
from domain.runtime import logs, tracing
from domain.runtime.errors import ConfigurationError
from domain.runtime.metrics import registry_of
from domain.runtime.settings import Settings

#: Every handler of the API.
ROUTES: Sequence[HTTPRouteHandler] = (
    *items.ROUTES,
    *reservations.ROUTES,
    *calendars.ROUTES,
    *bookings.ROUTES,
    *providers.ROUTES,
    *outbox.ROUTES,
    *audit.ROUTES,
    *feed.ROUTES,
    *health.ROUTES,
    *reference.ROUTES,
)

#: What the OpenAPI document shows of each operation, by the name of its handler.
OPERATIONS: Mapping[str, Shown] = {
    **items_examples.OPERATIONS,
    **reservations_examples.OPERATIONS,
    **calendars_examples.OPERATIONS,
    **bookings_examples.OPERATIONS,
    **providers_examples.OPERATIONS,
    **outbox_examples.OPERATIONS,
    **audit_examples.OPERATIONS,
    **feed_examples.OPERATIONS,
    **health_examples.OPERATIONS,
}

EXCEPTION_HANDLERS: ExceptionHandlersMap = {HTTPException: problems.of_any, Exception: problems.of_any}


def create_app(*, stop: Callable[[ConfigurationError], None]) -> Litestar:
    """Return the application with the settings of the environment. Raises ConfigurationError.

    `stop` ends this process if the configuration turns out to be wrong later, when the database can be asked.
    """
    settings = Settings.load()
    logs.configure(settings.log_level)
    tracing.start("holdfast-api")
    routes = load_routes(settings)
    check = RoutesCheck(settings, routes, stop=stop)
    check.begin()
    return assemble(settings, routes, check)


def assemble(settings: Settings, routes: Routes, check: RoutesCheck | None = None) -> Litestar:
    """Put the application together. It connects to nothing before it is started.

    With a check, nothing is recorded before it has succeeded.
    """
    doorbell = Doorbell(settings.broker())
    bulkheads = {kind: Bulkhead(kind, settings, limits, committed=doorbell.wake) for kind, limits in BULKHEADS.items()}
    brief_db, patient_db = connect_writers(settings)
    if check:
        check.guard(recording_engines((brief_db, patient_db), bulkheads))
    act = partial(reserve, routes=routes)
    group_commit = GroupCommit(brief_db, patient_db, act, queue_limit=settings.queue_limit, committed=doorbell.wake)
    gate = Gate.of(settings)
    streams = Streams(Tail(bulkheads["feed_tail"]), gate)
    cache = Cache(settings.broker())
    app = Litestar(
        # In a router, because handlers of the same path that are registered one by one are registered twice, and
        # then run in a thread within a thread.
        route_handlers=[Router("/", route_handlers=ROUTES)],
        lifespan=[
            _running(doorbell, group_commit, streams, cache, bulkheads.values(), [brief_db, patient_db], gate),
        ],
        dependencies={
            "doorbell": _given(doorbell),
            "routes": _given(routes),
            "reach": Provide(_reach, sync_to_thread=False),
            **{kind: _for_client(bulkhead) for kind, bulkhead in bulkheads.items()},
        },
        state=_state(settings, group_commit, streams, cache, bulkheads, gate),
        exception_handlers=EXCEPTION_HANDLERS,
        before_request=_before,
        before_send=[metrics.count],
        middleware=[Tracing()] if tracing.is_wanted() else [],
        request_max_body_size=MAX_BODY_BYTES,
        openapi_config=viewer.config(),
        plugins=[MetadataSchema()],
        logging_config=None,
        debug=False,
    )
    _complete(app, settings)
    return app


def _complete(app: Litestar, settings: Settings) -> None:
    """Add what is derived from all handlers of an application. Raises RuntimeError if one has no operation."""
    operations.require_known(app)
    app.state.query_parameters, app.state.allowed = queries.known(app), methods.allowed(app)
    openapi.complete(
        app.openapi_schema,
        OPERATIONS,
        requires_keys=settings.require_idempotency_keys,
        requires_credentials=app.state.gate.credentials is not None,
    )
    app.state.reference = viewer.made(app.openapi_schema)


def guarded(app: Application, inner: Litestar) -> Application:
    """Return an application before which senders are found out and limited. It leads to the inner one."""
    gate: Gate = inner.state.gate
    authentication = Authentication(app, gate, EdgeOperations(inner, gate.limits.operations))
    # Browsers ask without credentials.
    return CrossOrigin(authentication, inner.state.origins) if inner.state.origins else authentication


async def _before(request: Request[Any, Any, Any]) -> Response[None] | None:
    """Answer OPTIONS, and refuse what the sender may not do or no handler would take, before a handler is called."""
    if request.method == "OPTIONS":
        return methods.options(request)
    request.scope["reach"] = reach_in(request.scope, operation_of(request.route_handler))  # type: ignore[typeddict-unknown-key]
    queries.require_known(request)
    if request.app.state.requires_keys:
        require_key(request)
    return None


def _state(
    settings: Settings,
    group_commit: GroupCommit,
    streams: Streams,
    cache: Cache,
    bulkheads: Mapping[str, Bulkhead],
    gate: Gate,
) -> State:
    """Return what handlers read from `request.app.state`."""
    keys = key_service_of(settings)
    state = {
        "gate": gate,
        "origins": settings.cors_origins,
        "group_commit": group_commit,
        "streams": streams,
        "availability_cache": cache,
        "explanations": bulkheads["explanations"],
        "hold_lifetime": timedelta(seconds=settings.hold_seconds),
        "personal_data": PersonalData(keys) if keys else None,
        "venues": Venues(),
        "waiting": Waiting(bulkheads["waits"]),
        "requires_keys": settings.require_idempotency_keys,
        "exposition": Exposition(registry_of(readings=StatusCache(bulkheads["probes"].db).readings)),
    }
    return State(state, deep_copy=False)


def _running(
    doorbell: Doorbell,
    group_commit: GroupCommit,
    streams: Streams,
    cache: Cache,
    bulkheads: Collection[Bulkhead],
    writer_dbs: Sequence[sessionmaker[Session]],
    gate: Gate,
) -> Callable[[Litestar], AbstractAsyncContextManager[None]]:
    """Return what starts and stops the threads beside the event loop."""

    @asynccontextmanager
    async def running(_: Litestar) -> AsyncIterator[None]:
        doorbell.start()
        gate.start()
        group_commit.start()
        with before_stopping(streams.stop):
            yield
        streams.stop()
        gate.stop()
        await group_commit.close()
        for bulkhead in bulkheads:
            await asyncio.to_thread(bulkhead.close)
        await cache.close()
        doorbell.close()
        await asyncio.to_thread(tracing.stop)
        for db in writer_dbs:
            db.kw["bind"].dispose()

    return running


def _for_client(bulkhead: Bulkhead) -> Provide:
    """Inject a bulkhead for the client that has sent the request."""

    def provide(scope: Scope) -> Any:
        return ClientBulkhead(bulkhead, principal_of(scope))

    return Provide(provide, sync_to_thread=False)


def _reach(scope: Scope) -> Any:
    """Inject what the sender of the request may use the operation on."""
    return scope["reach"]  # type: ignore[typeddict-item]


def _given(value: object) -> Provide:
    """Inject one value, the same for every request."""

    def provide() -> Any:
        return value

    return Provide(provide, use_cache=True, sync_to_thread=False)
