"""An example of the audit, for the OpenAPI document."""

from collections.abc import Mapping

from api.audit.schemas import EntryPage, EntryView
from api.http.openapi import MADE, Shown

_ENTRY = EntryView(
    id=17,
    happened_at=MADE,
    who="user:ann",
    action="pause",
    subject=None,
    why="Stocktaking (OPS-7)",
    selection={"destination": "shop"},
    rows=0,
    operation_id=None,
    unreadable=None,
)

OPERATIONS: Mapping[str, Shown] = {"list_audit": Shown(answer=EntryPage([_ENTRY], None))}
