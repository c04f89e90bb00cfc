"""Health over HTTP: whether the process runs, whether it can serve, and its metrics."""

from collections.abc import Sequence
from typing import Any

from litestar import Request, Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Example
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from api.doorbell import Doorbell
from api.health.schemas import Liveness, Readiness
from domain.runtime.errors import DatabaseUnavailable
from domain.runtime.metrics import CONTENT_TYPE_LATEST, render
from domain.runtime.schema import is_migrated

UNREACHABLE = "unreachable: see DATABASE_URL"

_NOT_READY = ResponseSpec(
    Readiness,
    description="No request can be served now",
    generate_examples=False,
    examples=[Example(value=Readiness("unavailable", UNREACHABLE, "ok"))],
)


@get("/health/live", tags=["health"])
async def live() -> Liveness:
    """Answer as long as the process runs."""
    return Liveness("ok")


@get("/health/ready", sync_to_thread=True, responses={503: _NOT_READY}, tags=["health"])
def ready(db: sessionmaker[Session], doorbell: Doorbell) -> Response[Readiness]:
    """Answer 200 if requests can be served: the database is reachable and migrated.

    An unreachable broker is only a warning: without it, events are delivered late.
    """
    try:
        with db.begin() as session:
            database = "ok" if is_migrated(session) else "not migrated: run bin/migrate"
    except SQLAlchemyError:
        database = UNREACHABLE
    broker = (
        "ok"
        if doorbell.is_reachable()
        else "unreachable: no event is lost, but none is delivered until it is back or bin/process-outbox runs"
    )
    if database == "ok":
        return Response(Readiness("ok", database, broker))
    retry_after = str(DatabaseUnavailable.retry_after_seconds)
    return Response(Readiness("unavailable", database, broker), status_code=503, headers={"Retry-After": retry_after})


@get("/metrics", sync_to_thread=True, include_in_schema=False)
def metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Return the metrics of all API processes at this port, and the status of the outbox."""
    return Response(render(request.app.state.registry), media_type=CONTENT_TYPE_LATEST)


ROUTES: Sequence[HTTPRouteHandler] = (live, ready, metrics)
