"""The audit over HTTP, for operators: who did what, and when."""

from collections.abc import Sequence
from typing import Annotated

from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.params import Parameter

from api.audit.schemas import EntryPage, EntryView
from api.bulkheads import ClientBulkhead
from api.http.decoding import END, NO_NUL
from api.http.queries import TIMESTAMP, timestamp_of
from api.http.responses import reading
from domain.access import audit
from domain.access.audit import WHO_LENGTH, Filter

Who = Annotated[
    str | None,
    Parameter(min_length=1, max_length=WHO_LENGTH, pattern=NO_NUL, description="Who did it, such as `key:till`"),
]
Action = Annotated[
    str | None,
    Parameter(pattern=f"^[a-z][a-z.-]{{0,19}}{END}", description="What was done, such as `replay` or `item.stock`"),
]
Subject = Annotated[
    str | None,
    Parameter(min_length=1, max_length=255, pattern=NO_NUL, description="What it was done to, such as `item:17`"),
]
Since = Annotated[str | None, Parameter(description="What was done at this time or later", schema_extra=TIMESTAMP)]
Limit = Annotated[int, Parameter(ge=1, le=1_000, description="Maximum number of entries")]
Cursor = Annotated[int | None, Parameter(ge=1, le=2**63 - 1)]


@get("/audit", responses=reading(), tags=["audit"], operation="audit.read")
async def list_audit(
    operations: ClientBulkhead,
    who: Who = None,
    action: Action = None,
    subject: Subject = None,
    since: Since = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> EntryPage:
    """List what was done, the newest first: by operators, and to API keys, stock, owners of items, and guests."""
    wanted = Filter(who=who, action=action, subject=subject, since=timestamp_of("since", since))
    found = await operations.run(lambda session: audit.find(session, wanted, limit=limit, before=cursor))
    return EntryPage([EntryView.of(one) for one in found], str(found[-1].id) if len(found) == limit else None)


ROUTES: Sequence[HTTPRouteHandler] = (list_audit,)
