"""Exclusivity: which time of a calendar a constraint of the database keeps from being taken twice."""

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    DateTime,
    Update,
    bindparam,
    func,
    not_,
    null,
    select,
    tuple_,
    update,
)
from sqlalchemy.orm import Session

from domain.calendars.occupancies import from_now_on
from domain.calendars.table import item_range, occupancies, time_range
from domain.runtime.database import CLOCK


def make_exclusive(session: Session, item_id: int) -> None:
    """Have the constraint guard what is taken from now on of a locked calendar, which has a capacity of 1 now.

    What is over is no longer guarded where it may overlap that: the capacity may have been greater meanwhile.
    """
    taken = from_now_on(session, item_id)
    if taken:
        asked = {"calendar": item_id, "since": min(one.start for one in taken)}
        session.execute(_GUARD_NO_MORE, asked)
        session.execute(_GUARD, asked)


def _set_exclusive(is_exclusive: bool, *conditions: ColumnElement[bool]) -> Update:
    """Change rows of a calendar. If another transaction has locked one, this fails at once, as Busy.

    Whoever has locked some rows may be waiting for others, so to wait for a row could be a deadlock.
    """
    is_of_item = item_range(occupancies.c.item_id).op("&&")(item_range(bindparam("calendar", type_=BigInteger)))
    key = occupancies.c["reservation_id", "position"]
    locked = select(*key).where(is_of_item, *conditions).with_for_update(key_share=True, nowait=True).cte("locked")
    return update(occupancies).where(tuple_(*key) == tuple_(*locked.c)).values(is_exclusive=is_exclusive)


_since = func.tstzrange(bindparam("since", type_=DateTime(timezone=True)), null())
_GUARD_NO_MORE = _set_exclusive(
    False, occupancies.c.is_exclusive, time_range(occupancies).op("&&")(_since), occupancies.c.blocked_until <= CLOCK
)
_GUARD = _set_exclusive(
    True, not_(occupancies.c.is_exclusive), time_range(occupancies).op("&&")(func.tstzrange(CLOCK, null()))
)
