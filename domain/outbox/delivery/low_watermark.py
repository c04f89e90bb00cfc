"""The floor of a lane: the id up to which none of its rows is ready, so that nobody need look there.

What is settled stays in the index of ready rows for as long as anyone, anywhere in the database,
holds an old snapshot. Without a floor each claim would walk over all that was settled since.

A row may commit after newer ones, and must not be found below the floor then. So a floor rises
only to an id up to which every row that will ever be there is there: `Horizon` tells. And a row
that is there becomes ready again in one way only, by `wake`, which takes the floor away.
"""

from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from domain.outbox.table import lanes, outbox, ready

if TYPE_CHECKING:
    from domain.outbox.delivery.lanes import Lane


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What a claim saw: the newest row, and of the transactions that write, where they stood at that moment.

    All with ids below `ended_below` had ended; all that had begun have ids below `begun_below`.
    """

    newest: int
    ended_below: int
    begun_below: int


class Horizon:
    """Up to which id the rows are complete, as the claims of one process have shown. Safe for its threads.

    Whoever records has the id of its transaction before it has the id of a row: by the lock on
    the aggregate (see `record`). So when all that had begun at an earlier view have ended, each
    row up to the newest one of that view is visible, or never will be. This is kept in memory:
    who has seen nothing yet only leaves the floors where they are.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._ended: View | None = None
        self._noted: View | None = None

    def complete_to(self, now: View) -> int:
        """Return an id up to which all rows are visible in this view, or 0, and note the view for later ones."""
        with self._lock:
            # Ids that go backwards are given again: someone has emptied the table, or a standby took over.
            self._ended, self._noted = _not_beyond(now, self._ended), _not_beyond(now, self._noted)
            if self._noted is None or self._noted.begun_below <= now.ended_below:
                self._ended, self._noted = self._noted, now
            # Another thread may have noted it whose view is younger than this one.
            is_over = self._ended is not None and self._ended.begun_below <= now.ended_below
            return self._ended.newest if self._ended and is_over else 0


def _not_beyond(now: View, view: View | None) -> View | None:
    return view if view and view.newest <= now.newest else None


def take_away(session: Session, lane: "Lane") -> None:
    """Let a lane that we hold, and have locked, be read from its beginning."""
    ours = update(lanes).where(lanes.c.destination == lane.destination, lanes.c.lane == lane.number)
    session.execute(ours.where(lanes.c.settled_to > 0).values(settled_to=0))


def take_away_wrong_ones(session: Session) -> int:
    """Take away each floor that has ready rows below it. Return how many.

    By what workers do there are none. But an operator may set rows ready by hand or let the ids
    begin anew, and nothing may be stuck for ever. A hold that is under way leaves it at that.
    """
    below = (
        select(outbox.c.id)
        .where(ready, outbox.c.destination == lanes.c.destination, outbox.c.lane == lanes.c.lane)
        .where(outbox.c.id <= lanes.c.settled_to)
        .correlate(lanes)
    )
    wrong = update(lanes).where(below.exists()).values(settled_to=0)
    return len(session.execute(wrong.returning(lanes.c.lane)).all())
