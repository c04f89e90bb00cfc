"""Recording events: outbox rows, in the transaction of the change that they report."""

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
from domain.runtime.encoding import encode
from domain.runtime.identity import new_id
from domain.runtime.pipeline import Query


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
    rows = _wanted(events, routes)
    if rows:
        session.execute(*_writing(session, rows))
    return len(rows)


def record_query(session: Session, events: Iterable[Event], routes: Routes) -> Query | None:
    """Return the query that does what `record` does, or None without rows. The session counts as recorded."""
    rows = _wanted(events, routes)
    return _writing(session, rows) if rows else None


def _wanted(events: Iterable[Event], routes: Routes) -> Sequence[str]:
    return [row for event, content in _checked(events) for row in _rows(routes, event, content)]


def _writing(session: Session, rows: Sequence[str]) -> Query:
    session.info[_RECORDED] = True
    numbered = (f'{{"place":{place},{row}}}' for place, row in enumerate(rows))
    return Query(_INSERT, {"given": f"[{','.join(numbered)}]"})


#: Marks a session that has recorded something.
_RECORDED = "recorded"


def has_recorded(session: Session) -> bool:
    """Return whether this session has recorded an event. If so, its commit must be on disk before it is answered."""
    return _RECORDED in session.info


def _checked(events: Iterable[Event]) -> Iterator[tuple[Event, str]]:
    """Yield each event with the part of its rows, as JSON, that it shares with other events of the same change."""
    last: Event | None = None
    content = ""
    for event in events:
        validation.validate(event.type, event.payload)
        # Events that share a payload and headers come one after the other.
        if last is None or event.payload is not last.payload or event.headers is not last.headers:
            content = (
                f'"lane":{lane_of(event.aggregate_id)},"aggregate_id":"{event.aggregate_id}",'
                f'"payload":{encode(event.payload)},"headers":{encode(event.headers)}'
            )
        last = event
        yield event, content


def _rows(routes: Routes, event: Event, content: str) -> Sequence[str]:
    """Return a row for each destination that wants an event, as JSON without its braces."""
    wanted_by = routes.wanting(event.type)
    if not wanted_by:
        return ()
    same = f'"event_id":"{new_id()}","type":{encode(event.type)},{content}'
    return [f'"destination":{encode(name)},{same}' for name in wanted_by]


_COLUMNS = ("event_id", "destination", "lane", "aggregate_id", "type", "payload", "headers")
_given = records("given", place=Integer, **{name: outbox.c[name].type for name in _COLUMNS})
# In the order in which they were given, so that the ids are in the order of the events.
_INSERT = insert(outbox).from_select(_COLUMNS, select(*(_given.c[name] for name in _COLUMNS)).order_by(_given.c.place))
