"""Health over HTTP: whether the process runs, whether it can serve, and its metrics."""

import asyncio
from collections.abc import Sequence
from typing import Any

from litestar import Request, Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Example
from sqlalchemy.exc import SQLAlchemyError

from api.bulkheads import ClientBulkhead
from api.doorbell import Doorbell
from api.group_commit import GroupCommit
from api.health.schemas import Liveness, Readiness
from api.http.problems import wait_seconds
from api.http.responses import probing
from domain.runtime.errors import DatabaseUnavailable, Unavailable
from domain.runtime.metrics import CONTENT_TYPE_LATEST, render
from domain.runtime.schema import SCHEMA_VERSION, Schema, read_schema

UNREACHABLE = "unreachable: see DATABASE_URL"
TOO_OLD = "migrated for a newer release, which this one can't run beside: start the newer one"
HANGS = "hangs: reservations are not committed. Look at the server of DATABASE_URL, its disk and the network"

#: A set of reservations that is in flight for longer than this, in seconds, shows that the database hangs.
HUNG_SECONDS = 2.0

_NOT_READY = ResponseSpec(
    Readiness,
    description="No request can be served now",
    generate_examples=False,
    examples=[Example(value=Readiness("unavailable", UNREACHABLE, "ok"))],
)


@get("/health/live", responses=probing(), tags=["health"])
async def live() -> Liveness:
    """Answer as long as the process runs."""
    return Liveness("ok")


@get("/health/ready", responses=probing() | {503: _NOT_READY}, tags=["health"])
async def ready(request: Request[Any, Any, Any], probes: ClientBulkhead, doorbell: Doorbell) -> Response[Readiness]:
    """Answer 200 if requests can be served: the database answers and is migrated, and reservations are committed.

    An unreachable broker is only a warning: without it, events are delivered late.
    """
    group_commit: GroupCommit = request.app.state.group_commit
    database = HANGS if group_commit.age() > HUNG_SECONDS else await _database(probes)
    broker = (
        "ok"
        if doorbell.is_reachable()
        else "unreachable: no event is lost, but none is delivered until it is back or bin/process-outbox runs"
    )
    if database == "ok":
        return Response(Readiness("ok", database, broker))
    retry_after = str(wait_seconds(DatabaseUnavailable()))
    return Response(Readiness("unavailable", database, broker), status_code=503, headers={"Retry-After": retry_after})


async def _database(probes: ClientBulkhead) -> str:
    try:
        return _describe(await probes.run(read_schema))
    except (SQLAlchemyError, Unavailable):
        return UNREACHABLE


def _describe(schema: Schema | None) -> str:
    if schema is None or schema.version < SCHEMA_VERSION:
        return "not migrated: run bin/migrate"
    return "ok" if schema.serves() else TOO_OLD


@get("/metrics", include_in_schema=False)
async def metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Return the metrics of all API processes at this port, and the status of the outbox."""
    body = await asyncio.to_thread(render, request.app.state.registry)
    return Response(body, media_type=CONTENT_TYPE_LATEST)


ROUTES: Sequence[HTTPRouteHandler] = (live, ready, metrics)
