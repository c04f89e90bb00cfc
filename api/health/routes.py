"""Is it alive, and can it serve?"""

import msgspec
from litestar import Response, get
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Example
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from api.doorbell import Doorbell
from domain.runtime.database import is_migrated
from domain.runtime.errors import DatabaseUnavailable


class Life(msgspec.Struct):
    """It runs."""

    status: str


class Readiness(msgspec.Struct):
    """`status` is `ok` or `unavailable`; the others say `ok`, or what is wrong and how to go on."""

    status: str
    database: str
    broker: str


@get("/health/live", tags=["health"])
async def live() -> Life:
    """Answer while the process runs."""
    return Life("ok")


UNREACHABLE = "unreachable: see DATABASE_URL"

_NOT_READY = ResponseSpec(
    Readiness,
    description="Requests can't be served now",
    generate_examples=False,
    examples=[Example(value=Readiness("unavailable", UNREACHABLE, "ok"))],
)


@get("/health/ready", sync_to_thread=True, responses={503: _NOT_READY}, tags=["health"])
def ready(db: sessionmaker[Session], doorbell: Doorbell) -> Response[Readiness]:
    """Answer 200 when requests can be served: the database is reachable and migrated.

    A broker that is missing is a warning: events are only late without it.
    """
    try:
        with db.begin() as session:
            database = "ok" if is_migrated(session) else "not migrated: run bin/migrate"
    except SQLAlchemyError:
        database = UNREACHABLE
    broker = (
        "ok"
        if doorbell.is_heard()
        else "unreachable: nothing is lost, and nothing leaves until it is back or bin/process-outbox runs"
    )
    if database == "ok":
        return Response(Readiness("ok", database, broker))
    retry_after = str(DatabaseUnavailable.retry_after_seconds)
    return Response(Readiness("unavailable", database, broker), status_code=503, headers={"Retry-After": retry_after})
