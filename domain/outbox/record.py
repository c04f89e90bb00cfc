"""Recording events: outbox rows, in the transaction of the change that they report."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import Integer, insert, select
from sqlalchemy.orm import Session

from domain.events import validation
from domain.outbox.routes import Routes
from domain.outbox.table import lane_of, outbox
from domain.runtime.database import records
from domain.runtime.identity import new_id


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to one aggregate, or that must be done for it.

    `payload` fits the schema of its type. Several events may share one.
    """

    type: str
    aggregate_id: UUID
    payload: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)


def record(session: Session, events: Iterable[Event], routes: Routes) -> int:
    """Write one row for each destination that wants each event. Return how many.

    The caller holds the lock on each aggregate, so the order of ids within one
    aggregate is the order in which its events happened, and the transaction has its id
    before the rows have theirs (which `CommitHorizon` relies on). All rows of an event share
    its `event_id`. Raises InvalidEvent, with no row written, if the payload of one event does not fit
    its schema, whether or not any destination wants it.
    """
    rows = [row for event, payload in _checked(events) for row in _rows(routes, event, payload)]
    if rows:
        numbered = (f'{{"place":{place},{row}}}' for place, row in enumerate(rows))
        session.execute(_INSERT, {"given": f"[{','.join(numbered)}]"})
        session.info[_RECORDED] = True
    return len(rows)


#: Marks a session that has recorded something.
_RECORDED = "recorded"


def has_recorded(session: Session) -> bool:
    """Return whether this session has recorded an event. If so, its commit must be on disk before it is answered."""
    return _RECORDED in session.info


def _checked(events: Iterable[Event]) -> Iterator[tuple[Event, str]]:
    """Yield each event with its payload as JSON text."""
    payload: Mapping[str, Any] | None = None
    text = ""
    for event in events:
        validation.validate(event.type, event.payload)
        # Events that share a payload come one after the other.
        if event.payload is not payload:
            payload, text = event.payload, json.dumps(event.payload)
        yield event, text


def _rows(routes: Routes, event: Event, payload: str) -> Sequence[str]:
    """Return the members of the rows of an event, as JSON. Its payload is JSON already."""
    wanted_by = routes.wanting(event.type)
    if not wanted_by:
        return ()
    headers = json.dumps(event.headers) if event.headers else "{}"
    same = (
        f'"event_id":"{new_id()}","lane":{lane_of(event.aggregate_id)},"aggregate_id":"{event.aggregate_id}",'
        f'"type":{json.dumps(event.type)},"payload":{payload},"headers":{headers}'
    )
    return [f'"destination":{json.dumps(name)},{same}' for name in wanted_by]


_COLUMNS = ("event_id", "destination", "lane", "aggregate_id", "type", "payload", "headers")
_given = records("given", place=Integer, **{name: outbox.c[name].type for name in _COLUMNS})
# In the order in which they were given, so that the ids are in the order of the events.
_INSERT = insert(outbox).from_select(_COLUMNS, select(*(_given.c[name] for name in _COLUMNS)).order_by(_given.c.place))
