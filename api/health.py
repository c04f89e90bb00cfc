"""Is it alive, and can it serve?"""

from typing import Any

from litestar import Response, get
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from api.doorbell import Doorbell
from domain.database import is_migrated


@get("/health/live", tags=["health"])
async def live() -> dict[str, str]:
    """Answer while the process runs."""
    return {"status": "ok"}


@get("/health/ready", sync_to_thread=True, tags=["health"])
def ready(db: sessionmaker[Session], doorbell: Doorbell) -> Response[dict[str, Any]]:
    """Answer 200 when requests can be served: the database is reachable and migrated.

    A broker that is missing is a warning: events are only late without it.
    """
    try:
        with db.begin() as session:
            database = "ok" if is_migrated(session) else "not migrated: run bin/migrate"
    except SQLAlchemyError:
        database = "unreachable: see DATABASE_URL"
    broker = "ok" if doorbell.is_heard() else "unreachable: events leave within seconds instead of at once"
    status = "ok" if database == "ok" else "unavailable"
    return Response(
        {"status": status, "database": database, "broker": broker}, status_code=200 if status == "ok" else 503
    )
