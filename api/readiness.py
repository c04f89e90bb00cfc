"""Whether requests can be served: the database answers and has the schema, and reservations are committed."""

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from api.auth.gate import Gate
from api.bulkheads import Bulkhead
from api.group_commit import GroupCommit
from domain.outbox import Routes
from domain.outbox.operations import routes_in_force
from domain.runtime.errors import Unavailable
from domain.runtime.schema import REPAIR, SCHEMA_VERSION, missing, read_schema

OK = "ok"
UNREACHABLE = "unreachable: see DATABASE_URL"
NOT_MIGRATED = "not migrated: run bin/migrate"
TOO_OLD = "migrated for a newer release, which this one can't run beside: start the newer one"
INCOMPLETE = f"incomplete: the schema lacks {{}}, {REPAIR}"
HANGS = "hangs: reservations are not committed. Look at the server of DATABASE_URL, its disk and the network"

OTHER_ROUTES = (
    "other routes are in force since this process started, and it still records by the former ones: restart it with the"
    " present ones; bin/destinations routes shows both"
)
UNKNOWN = "unknown, as the database can't be asked"

#: A set of reservations that is in flight for longer than this, in seconds, shows that the database hangs.
HUNG_SECONDS = 2.0


async def of_database(group_commit: GroupCommit, probes: Bulkhead) -> str:
    """Return OK, or what is wrong with the database and what to do."""
    if group_commit.age() > HUNG_SECONDS:
        return HANGS
    try:
        return await probes.run(_check_schema)
    except (SQLAlchemyError, Unavailable):
        return UNREACHABLE


async def of_routes(routes: Routes, probes: Bulkhead) -> str:
    """Return OK, or that others than these routes are in force. A process that has them serves all the same.

    If that made a process unready, a change of the routes would take all processes out of service at once.
    """

    def differ(session: Session) -> bool:
        return routes_in_force.differ(session, routes)

    try:
        return OTHER_ROUTES if await probes.run(differ) else OK
    except (SQLAlchemyError, Unavailable):
        return UNKNOWN


def of_tokens(gate: Gate) -> str:
    """Return OK, or what is wrong with the keys of tokens. A process without any serves API keys all the same.

    If it were not ready, an outage of the identity provider would keep out those who need no token of it.
    """
    return (gate.credentials.trouble if gate.credentials else None) or OK


def _check_schema(session: Session) -> str:
    schema = read_schema(session)
    if schema is None or schema.version < SCHEMA_VERSION:
        return NOT_MIGRATED
    if not schema.serves():
        return TOO_OLD
    lacking = missing(session)
    return INCOMPLETE.format(", ".join(lacking)) if lacking else OK
