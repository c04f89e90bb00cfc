"""Recording events: outbox rows, in the transaction of the change that they report."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from domain.events import validation
from domain.outbox.routes import Routes
from domain.outbox.table import lane_of, outbox
from domain.runtime.database import copy
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
        copy(session, outbox, _COLUMNS, rows)
        session.info[_RECORDED] = True
    return len(rows)


#: Marks a session that has recorded something.
_RECORDED = "recorded"


def has_recorded(session: Session) -> bool:
    """Return whether this session has recorded an event. If so, its commit must be on disk before it is answered."""
    return _RECORDED in session.info


_COLUMNS = ("event_id", "destination", "lane", "aggregate_id", "type", "payload", "headers")


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


def _rows(routes: Routes, event: Event, payload: str) -> Sequence[tuple[Any, ...]]:
    wanted_by = routes.wanting(event.type)
    if not wanted_by:
        return ()
    event_id, lane = new_id(), lane_of(event.aggregate_id)
    headers = json.dumps(event.headers) if event.headers else "{}"
    return [(event_id, name, lane, event.aggregate_id, event.type, payload, headers) for name in wanted_by]
