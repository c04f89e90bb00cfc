"""Occupancies: reading which time of calendars is taken, taking it, and giving it back."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    CompoundSelect,
    DateTime,
    Integer,
    Interval,
    Select,
    String,
    Uuid,
    bindparam,
    delete,
    func,
    insert,
    null,
    select,
    true,
    union_all,
    update,
)
from sqlalchemy.orm import Session

from domain.calendars.capacity import Occupied
from domain.calendars.periods import Period
from domain.calendars.rules import blocked
from domain.calendars.table import occupancies, overlapping
from domain.items import Item, items
from domain.runtime.database import CLOCK, arrays, is_given, lists, records
from domain.runtime.encoding import encode
from domain.runtime.errors import InTheWay
from domain.runtime.pipeline import Query


class Occupancy(NamedTuple):
    """`units` of a calendar are taken from `blocked_from` until `blocked_until`, by one line of a reservation.

    If the hold `is_lapsed`, the time is free for whoever expires it first.
    """

    reservation_id: UUID
    position: int
    units: int
    blocked_from: datetime
    blocked_until: datetime
    is_lapsed: bool

    def overlaps(self, time: Period) -> bool:
        """Return whether it blocks a moment of this time."""
        return self.blocked_from < time.end and time.start < self.blocked_until


#: What is taken, by the id of the calendar.
Occupancies = Mapping[int, Sequence[Occupancy]]

#: So many occupancies are read for a period, so many where several periods overlap, and so many for all periods: more
#: would keep whoever else is in the set waiting. However many periods there are, some are read for each.
READ, MOST_READ, MOST_READ_OF_ALL = 2_000, 20_000, 80_000
LEAST_READ = 100


def occupied_query(wanted: Iterable[tuple[int | str, Period]]) -> tuple[Query, Sequence[int]]:
    """Return the query for what is taken of these calendars, named by id or sku, where reservations would block time.

    Periods that overlap are read as one. The numbers that are returned are how many occupancies are read for each.
    """
    windows, numbers = _windows(wanted)
    share = MOST_READ_OF_ALL // sum(numbers)
    limits = [max(LEAST_READ, min(READ * number, MOST_READ, share * number)) for number in numbers]
    asked = [{**window, "place": place, "most": limits[place]} for place, window in enumerate(windows)]
    return Query(_OCCUPIED, {"asked": encode(asked)}), limits


def read_occupied(rows: Iterable[Any], limits: Sequence[int]) -> tuple[Occupancies, Collection[int]]:
    """Return what is taken, from the rows of the query, and the busy calendars: of these, more may be taken."""
    by_item: dict[int, dict[tuple[UUID, int], Occupancy]] = defaultdict(dict)
    read: Counter[tuple[int, int]] = Counter()
    for item_id, place, *columns in rows:
        found = Occupancy(*columns)
        by_item[item_id][found.reservation_id, found.position] = found
        read[item_id, place] += 1
    busy = {item_id for (item_id, place), number in read.items() if number >= limits[place]}
    return {item_id: list(found.values()) for item_id, found in by_item.items()}, busy


def _windows(wanted: Iterable[tuple[int | str, Period]]) -> tuple[Sequence[Mapping[str, Any]], Sequence[int]]:
    """Return from when until when each calendar is wanted, and by how many periods."""
    by_name: dict[int | str, list[Period]] = defaultdict(list)
    for name, period in wanted:
        by_name[name].append(period)
    windows, numbers = [], []
    for name, periods in by_name.items():
        column = "item_id" if isinstance(name, int) else "sku"
        for start, end, number in _merged(periods):
            windows.append({column: name, "start": start, "end": end})
            numbers.append(number)
    return windows, numbers


def _merged(periods: Iterable[Period]) -> Sequence[tuple[datetime, datetime, int]]:
    """Return from when until when periods overlap, and how many."""
    merged: list[tuple[datetime, datetime, int]] = []
    for period in sorted(periods, key=attrgetter("start")):
        if merged and period.start <= merged[-1][1]:
            start, end, number = merged[-1]
            merged[-1] = start, max(end, period.end), number + 1
        else:
            merged.append((period.start, period.end, 1))
    return merged


_TIME = DateTime(timezone=True)
_asked = records("asked", item_id=BigInteger, sku=String, start=_TIME, end=_TIME, place=Integer, most=Integer)
_COLUMNS = "reservation_id", "position", "units", "blocked_from", "blocked_until"
is_lapsed = func.coalesce(occupancies.c.held_until <= CLOCK, False).label("is_lapsed")


def _occupied(is_asked_for: ColumnElement[bool]) -> Select[Any]:
    """Read what is taken of each item that is asked for."""
    before, after = (func.make_interval(0, 0, 0, 0, 0, 0, seconds) for seconds in _BUFFERS)
    period = func.tstzrange(_asked.c.start - before, _asked.c.end + after)
    columns = *occupancies.c[_COLUMNS], is_lapsed
    found = overlapping(columns, items.c.id, period, of=(_asked, items)).limit(_asked.c.most).lateral("found")
    return select(items.c.id, _asked.c.place, *found.c).select_from(
        _asked.join(items, is_asked_for).join(found, true())
    )


_BUFFERS = items.c.buffer_before_seconds, items.c.buffer_after_seconds
_OCCUPIED = union_all(_occupied(_asked.c.item_id == items.c.id), _occupied(_asked.c.sku == items.c.sku))


def from_now_on(session: Session, item_id: int) -> Sequence[Occupied]:
    """Return what is taken of a calendar from now on. It reads all of it, which is for when its capacity changes."""
    found = session.execute(_FROM_NOW_ON, {"item_id": item_id})
    return [Occupied(row.blocked_from, row.blocked_until, row.units) for row in found]


def in_the_way(session: Session, item_id: int, time: Period, limit: int, *, but: UUID | None = None) -> list[InTheWay]:
    """Return what is taken of a calendar within this time, in order of time. Lapsed holds and `but` are left out."""
    asked = {"item_id": item_id, "start": time.start, "end": time.end, "limit": limit, "but": but}
    return [InTheWay(*row) for row in session.execute(_IN_THE_WAY, asked)]


def lines(session: Session, reservation_id: UUID) -> int:
    """Return how many lines of a reservation take time."""
    number: int = session.execute(_LINES, {"reservation_id": reservation_id}).scalar_one()
    return number


_item_id = bindparam("item_id", type_=BigInteger)


_SHOWN = "blocked_from", "blocked_until", "units", "held_until"


def _of_item(time: ColumnElement[Any]) -> CompoundSelect[Any]:
    return overlapping(occupancies.c["reservation_id", *_SHOWN], _item_id, time)


_FROM_NOW_ON = _of_item(func.tstzrange(CLOCK, null()))
_LINES = (
    select(func.count())
    .select_from(occupancies)
    .where(occupancies.c.reservation_id == bindparam("reservation_id", type_=Uuid))
)
_time = _of_item(func.tstzrange(bindparam("start", type_=_TIME), bindparam("end", type_=_TIME))).subquery("found")
_IN_THE_WAY = (
    select(*_time.c[_SHOWN])
    .where(func.coalesce(_time.c.held_until > CLOCK, True))
    .where(_time.c.reservation_id.is_distinct_from(bindparam("but", type_=Uuid)))
    .order_by(_time.c.blocked_from, _time.c.blocked_until)
    .limit(bindparam("limit", type_=Integer))
)


class Taken(NamedTuple):
    """A line of a reservation that takes time of a calendar. `held_until` is when it lapses, if it is a hold."""

    reservation_id: UUID
    position: int
    item: Item
    units: int
    period: Period
    held_until: datetime | None


def take_query(taken: Iterable[Taken]) -> Query:
    """Return the query that takes time. The caller has locked the calendars, and has seen that the time is free."""
    return Query(_INSERT, {"taken": encode([_row(one) for one in taken])})


def _row(taken: Taken) -> Mapping[str, Any]:
    time = blocked(taken.item, taken.period)
    return {
        "reservation_id": taken.reservation_id,
        "position": taken.position,
        "item_id": taken.item.id,
        "units": taken.units,
        "blocked_from": time.start,
        "blocked_until": time.end,
        "held_until": taken.held_until,
        "is_exclusive": taken.item.capacity == 1,
    }


_taken = records("taken", **{column.name: column.type for column in occupancies.c})
_INSERT = insert(occupancies).from_select(
    [column.name for column in occupancies.c], select(*(_taken.c[column.name] for column in occupancies.c))
)


def give_back(session: Session, reservation_ids: Collection[UUID]) -> None:
    """Give the time of reservations back. This needs no lock of the calendars: it makes nobody's time less."""
    if reservation_ids:
        session.execute(_DELETE, {"ids": list(reservation_ids)})


class Shorter(NamedTuple):
    """A reservation takes `fewer` units than it did, from so much `later` on, until so much `earlier`."""

    reservation_id: UUID
    later: timedelta
    earlier: timedelta
    fewer: int


def shorten(session: Session, several: Collection[Shorter]) -> None:
    """Give a part of the time or of the units of reservations back. The rest keeps its buffers. It needs no lock."""
    if several:
        columns = zip(Shorter._fields, map(list, zip(*several, strict=True)), strict=True)
        session.execute(_SHORTEN, lists(_shorter, **dict(columns)))


def hold_until(session: Session, until: Mapping[UUID, datetime | None]) -> None:
    """Note until when the time of these reservations is held. None: it does not lapse."""
    if until:
        session.execute(_HOLD, lists(_held, id=list(until), until=list(until.values())))


_DELETE = delete(occupancies).where(is_given(occupancies.c.reservation_id))
_shorter = arrays("shorter", reservation_id=Uuid, later=Interval, earlier=Interval, fewer=Integer)
_SHORTEN = (
    update(occupancies)
    .where(occupancies.c.reservation_id == _shorter.c.reservation_id)
    .values(
        blocked_from=occupancies.c.blocked_from + _shorter.c.later,
        blocked_until=occupancies.c.blocked_until - _shorter.c.earlier,
        units=occupancies.c.units - _shorter.c.fewer,
    )
)
_held = arrays("held", id=Uuid, until=_TIME)
_HOLD = update(occupancies).where(occupancies.c.reservation_id == _held.c.id).values(held_until=_held.c.until)
