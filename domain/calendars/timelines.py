"""What is in use of calendars within some time. PostgreSQL packs it into one value for each calendar.

Such a value is compared as a whole: while it is the same, whatever was computed from it alone is still right.
"""

import struct
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    DateTime,
    Select,
    Uuid,
    bindparam,
    func,
    literal,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import BYTEA, aggregate_order_by
from sqlalchemy.orm import Session

from domain.calendars.capacity import Occupied, Timeline
from domain.calendars.periods import Period
from domain.calendars.table import occupancies, overlapping
from domain.runtime.database import CLOCK, arrays, lists

#: The start and the end in microseconds since 2000, which is how PostgreSQL sends a timestamp, and the units.
PACKED = struct.Struct(">qqq")
SINCE = datetime(2000, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def read_timelines(session: Session, times: Mapping[int, Period], *, but: UUID | None = None) -> dict[int, Timeline]:
    """Return what is in use of calendars, by their ids, each within its time. Lapsed holds and `but` are free.

    Each row is in one of the two indexes by time. The caller lets PostgreSQL read by index, see `read_by_index`.
    """
    return {item_id: timeline_of(packed) for item_id, packed in read_packed(session, times, but=but).items()}


def timeline_of(packed: bytes) -> Timeline:
    """Return what is packed as a timeline."""
    return Timeline(_unpacked(packed))


def read_packed(session: Session, times: Mapping[int, Period], *, but: UUID | None = None) -> dict[int, bytes]:
    """Return the same as `read_timelines`, packed."""
    bounds = [(time.start, time.end) for time in times.values()]
    starts, ends = ([bound[place] for bound in bounds] for place in (0, 1))
    rows = session.execute(_PACKED, lists(_asked, item_id=list(times), start=starts, end=ends) | {"but": but})
    return dict.fromkeys(times, b"") | {item_id: bytes(packed) for item_id, packed in rows}


def _unpacked(packed: bytes) -> Iterator[Occupied]:
    for start, end, units in PACKED.iter_unpack(packed):
        yield Occupied(SINCE + start * MICROSECOND, SINCE + end * MICROSECOND, units)


_TIME = DateTime(timezone=True)
_asked = arrays("asked", item_id=BigInteger, start=_TIME, end=_TIME)


def _occupied() -> Select[Any]:
    """Read what is occupied. What has the same time is added up: a restaurant has many reservations and few times."""
    is_kept = func.coalesce(occupancies.c.held_until > CLOCK, true())
    is_other = occupancies.c.reservation_id.is_distinct_from(bindparam("but", type_=Uuid))
    columns = occupancies.c["blocked_from", "blocked_until", "units"]
    time = func.tstzrange(_asked.c.start, _asked.c.end)
    used = overlapping(columns, _asked.c.item_id, time, is_kept, is_other, of=[_asked]).lateral("used")
    key = _asked.c.item_id, used.c.blocked_from, used.c.blocked_until
    units = func.sum(used.c.units).label("units")
    return select(*key, units).select_from(_asked.join(used, true())).group_by(*key)


_occupied_times = _occupied().subquery("occupied")


def _packed() -> ColumnElement[bytes]:
    """Return the expression that packs what is occupied of a calendar, in one order whatever the plan is."""
    times = _occupied_times.c.blocked_from, _occupied_times.c.blocked_until
    parts = (*map(func.timestamptz_send, times), func.int8send(_occupied_times.c.units))
    row = parts[0].op("||")(parts[1]).op("||")(parts[2])
    return func.string_agg(row, aggregate_order_by(literal(b"", BYTEA), *times))


_PACKED = select(_occupied_times.c.item_id, _packed()).group_by(_occupied_times.c.item_id)
