"""The commit horizon: up to which id all rows of the outbox are visible, or never will be. Pure.

Ids are given before rows commit, so a row may become visible after rows with higher ids.
"""

from dataclasses import dataclass
from threading import Lock


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotView:
    """What the snapshot of one claim showed.

    `newest` is the highest id of a visible row. All transactions with ids below `ended_below` had ended; all that
    had begun have ids below `begun_below`.
    """

    newest: int
    ended_below: int
    begun_below: int


class CommitHorizon:
    """The commit horizon, as the claims of one process have shown it. Safe for threads.

    A transaction that records a row has its own id before the row has one, because it locks the aggregate first
    (see `record`). So when every transaction that had begun at an earlier view has ended, each row up to the newest
    one of that view is visible, or never will be. The views are kept in memory: a process that has just started
    knows no commit horizon, and only leaves the low watermarks where they are.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._ended: SnapshotView | None = None
        self._pending: SnapshotView | None = None

    def at(self, now: SnapshotView) -> int:
        """Return the commit horizon: an id up to which all rows are visible in this view, or 0 if none is known.

        The view is remembered for later calls.
        """
        with self._lock:
            # Ids that go backwards are given a second time: the table was emptied, or a standby took over.
            self._ended, self._pending = _not_beyond(now, self._ended), _not_beyond(now, self._pending)
            if self._pending is None or self._pending.begun_below <= now.ended_below:
                self._ended, self._pending = self._pending, now
            # Another thread, whose view is younger than this one, may have remembered `_ended`.
            is_over = self._ended is not None and self._ended.begun_below <= now.ended_below
            return self._ended.newest if self._ended and is_over else 0


def _not_beyond(now: SnapshotView, view: SnapshotView | None) -> SnapshotView | None:
    return view if view and view.newest <= now.newest else None
