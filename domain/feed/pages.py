"""Reading the feed, page after page. A page is one statement, so it sees one moment."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from functools import cache
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    CTE,
    BigInteger,
    Column,
    Integer,
    Select,
    String,
    Subquery,
    Text,
    bindparam,
    cast,
    func,
    select,
    true,
)
from sqlalchemy.orm import Session

from domain.events.validation import event_types
from domain.feed.table import BY_AGGREGATE, BY_TYPE, feed_events
from domain.outbox.table import within
from domain.runtime.database import READ_IN_INDEX_ORDER, like
from domain.runtime.errors import Invalid, PositionGone

#: A page ends after this many bytes of payloads, so that no page takes much memory, however large the events are.
MOST_BYTES = 1_000_000


class FeedEvent(NamedTuple):
    """An event of the feed. `payload` is JSON text; `created_at` is when it was recorded."""

    position: int
    event_id: UUID
    type: str
    aggregate_id: UUID
    payload: str
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which events are wanted. `type` may contain `*` for any characters; without fields, it is every event.

    Raises Invalid for a type that no event has.
    """

    type: str | None = None
    aggregate_id: UUID | None = None

    def __post_init__(self) -> None:
        if self.type is not None and not any(fnmatchcase(known, self.type) for known in _known_types()):
            raise Invalid("type", f"no event has the type {self.type}; the types are {', '.join(_known_types())}")

    def wants(self, event_type: str, aggregate_id: UUID) -> bool:
        """Return whether an event of that type and aggregate is wanted."""
        is_of_type = self.type is None or fnmatchcase(event_type, self.type)
        return is_of_type and self.aggregate_id in (None, aggregate_id)


@dataclass(frozen=True, slots=True)
class Page:
    """Events in order of position. All that are wanted up to `read_up_to` are in it, so the next page follows there.

    `newest` is the position of the newest event of all.
    """

    events: Sequence[FeedEvent]
    read_up_to: int
    newest: int


def read(session: Session, wanted: Filter, *, after: int | None = None, limit: int) -> Page:
    """Return the first wanted events after a position, or the first ones of all that the feed still has.

    There are `limit` at most, and after the event that reaches MOST_BYTES no further one.

    Raises PositionGone if the feed does not have what followed the position: it was pruned, or no event has the
    position, as after the feed was made anew or restored from a backup.
    """
    statement = _statement(wanted.type is not None, wanted.aggregate_id is not None)
    of_type = wanted.type and like(wanted.type)
    session.execute(READ_IN_INDEX_ORDER)
    bounds = {"after": after or 0, "limit": limit, "most_bytes": MOST_BYTES}
    found = session.execute(statement, bounds | {"type": of_type, "aggregate_id": wanted.aggregate_id}).all()
    last, following, matching = found[0][:3]
    if after is not None and after != last and following != after + 1:
        raise PositionGone(after, following or session.execute(_FIRST).scalar_one())
    events = [FeedEvent._make(row[3:]) for row in found if row.position is not None]
    is_all = not events or len(events) == matching < limit
    return Page(events, last if is_all else events[-1].position, last)


_known_types = cache(event_types)


def newest(session: Session) -> int:
    """Return the position of the newest event, 0 if there was none yet."""
    position: int = session.execute(select(_NEWEST)).scalar_one()
    return position


_position = feed_events.c.position
_after, _limit = bindparam("after", type_=BigInteger), bindparam("limit", type_=Integer)
_like, _most_bytes = bindparam("type", type_=String), bindparam("most_bytes", type_=Integer)
_NEWEST = func.coalesce(select(_position).order_by(_position.desc()).limit(1).scalar_subquery(), 0)
# The first event of an empty feed will have the position 1.
_FIRST = select(func.coalesce(select(_position).order_by(_position).limit(1).scalar_subquery(), 1))
_NEXT = select(_position).where(_position > _after).order_by(_position).limit(1).scalar_subquery()


@cache
def _statement(by_type: bool, by_aggregate: bool) -> Select[Any]:
    """Return the statement for a page. It has a row without an event if there is none.

    As it sees one moment, no event can be pruned between the reading and the check that none was pruned before.
    """
    head = select(_NEWEST.label("newest"), _NEXT.label("next")).subquery("head")
    page = _within_bytes(_matching(by_type, by_aggregate).subquery("matching"))
    fields = (page.c[name] for name in FeedEvent._fields)
    joined = head.outerjoin(page, true())
    return select(*head.c, page.c.matching, *fields).select_from(joined).order_by(page.c.position)


def _matching(by_type: bool, by_aggregate: bool) -> Select[Any]:
    """Read the first events that match, up to the limit, by the one index that has them in this order."""
    if by_aggregate:
        its_id = bindparam("aggregate_id", type_=feed_events.c.aggregate_id.type)
        found = _first(*BY_AGGREGATE).where(within(BY_AGGREGATE, (its_id,), above=_after))
        return found.where(feed_events.c.type.like(_like, escape="\\")) if by_type else found
    if by_type:
        return _matching_type()
    return _first(_position).where(_position > _after)


def _matching_type() -> Select[Any]:
    """Read the first events of each type, so that a rare one is not looked for among all others."""
    types = _types()
    first = _first(*BY_TYPE).where(within(BY_TYPE, (types.c.type,), above=_after)).correlate(types).lateral("first")
    found = select(*first.c).select_from(types.join(first, true()))
    return found.where(types.c.type.like(_like, escape="\\")).order_by(first.c.position).limit(_limit)


def _first(*key: Column[Any]) -> Select[Any]:
    return select(*(feed_events.c[name] for name in FeedEvent._fields)).order_by(*key).limit(_limit)


def _types() -> CTE:
    """Return the types of all events, from one index entry each. A newer release may have appended types of its own."""
    following = feed_events.alias("following")
    first = select(feed_events.c.type).order_by(feed_events.c.type).limit(1).scalar_subquery()
    types = select(first.label("type")).cte("types", recursive=True)
    greater = select(following.c.type).where(following.c.type > types.c.type).order_by(following.c.type).limit(1)
    return types.union_all(select(greater.scalar_subquery()).where(types.c.type.is_not(None)))


def _within_bytes(matching: Subquery) -> Subquery:
    """Keep the first events, as many as there are before MOST_BYTES, with the number of all that match."""
    payload = cast(matching.c.payload, Text)
    size = func.octet_length(payload)
    total = func.sum(size).over(order_by=matching.c.position, rows=(None, 0))
    fields = [payload.label("payload") if name == "payload" else matching.c[name] for name in FeedEvent._fields]
    counts = (total - size).label("bytes_before"), func.count().over().label("matching")
    sized = select(*fields, *counts).subquery("sized")
    return select(sized).where(sized.c.bytes_before < _most_bytes).subquery("page")
