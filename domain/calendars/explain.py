"""Explaining why time of a calendar is not free, and what is free instead."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy.orm import Session

from domain import items
from domain.calendars import occupancies
from domain.calendars.periods import Period
from domain.calendars.rules import blocked
from domain.runtime.errors import Alternative, InTheWay, NotFree

#: The first of more conflicts are shown: a client chooses another time, whatever else is in the way.
MAX_CONFLICTS = 20


class Explanation(NamedTuple):
    """What is in the way, in order of time, and what can be reserved instead, the nearest first."""

    conflicts: Sequence[InTheWay]
    alternatives: Sequence[Alternative]


def explain(session: Session, refused: NotFree) -> Explanation:
    """Return why a period is not free, as it is by now. It locks nothing. Raises UnknownItem."""
    item = items.get(session, refused.sku)
    wanted = Period(refused.start, refused.end)
    conflicts = occupancies.in_the_way(session, item.id, blocked(item, wanted), MAX_CONFLICTS)
    return Explanation(conflicts, [])
