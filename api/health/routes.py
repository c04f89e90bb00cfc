"""Health over HTTP: whether the process runs, whether it can serve, and its metrics."""

from collections.abc import Sequence
from typing import Any

from litestar import Request, Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Example

from api import readiness
from api.bulkheads import ClientBulkhead
from api.doorbell import Doorbell
from api.group_commit import GroupCommit
from api.health.exposition import Exposition
from api.health.schemas import Liveness, Readiness
from api.http.responses import probing
from api.waits import wait_seconds
from domain.outbox import Routes
from domain.runtime.errors import DatabaseUnavailable
from domain.runtime.metrics import CONTENT_TYPE_LATEST

_NOT_READY = ResponseSpec(
    Readiness,
    description="No request can be served now",
    generate_examples=False,
    examples=[Example(value=Readiness("unavailable", readiness.UNREACHABLE, "ok", readiness.UNKNOWN, "ok"))],
)


@get("/health/live", responses=probing(), tags=["health"], operation="health.read")
async def live() -> Liveness:
    """Answer as long as the process runs."""
    return Liveness("ok")


@get("/health/ready", responses=probing() | {503: _NOT_READY}, tags=["health"], operation="health.read")
async def ready(
    request: Request[Any, Any, Any], probes: ClientBulkhead, doorbell: Doorbell, routes: Routes
) -> Response[Readiness]:
    """Answer 200 if requests can be served: the database answers and has the schema, and reservations are committed.

    An unreachable broker is only a warning: without it, events are delivered late. So are routes that have changed:
    this process records by the former ones until it is restarted. So are the keys of the identity provider: while there
    are none, API keys are served.
    """
    group_commit: GroupCommit = request.app.state.group_commit
    database = await readiness.of_database(group_commit, probes.bulkhead)
    broker = (
        "ok"
        if doorbell.is_reachable()
        else "unreachable: no event is lost, but none is delivered until it is back or bin/process-outbox runs"
    )
    tokens = readiness.of_tokens(request.app.state.gate)
    if database == readiness.OK:
        recording = await readiness.of_routes(routes, probes.bulkhead)
        return Response(Readiness("ok", database, broker, recording, tokens))
    retry_after = str(wait_seconds(DatabaseUnavailable()))
    not_ready = Readiness("unavailable", database, broker, readiness.UNKNOWN, tokens)
    return Response(not_ready, status_code=503, headers={"Retry-After": retry_after})


@get("/metrics", include_in_schema=False, operation="metrics.read")
async def metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Return the metrics of all API processes at this port, and the status of the outbox. It may take a second."""
    exposition: Exposition = request.app.state.exposition
    return Response(await exposition.text(), media_type=CONTENT_TYPE_LATEST)


ROUTES: Sequence[HTTPRouteHandler] = (live, ready, metrics)
