"""The invariant of the feed."""

from sqlalchemy import Select, func, select

from domain.feed.table import feed_events
from domain.invariants.invariant import Invariant


def _gaps() -> Select[str]:
    """The positions after which one is missing."""
    following = func.lead(feed_events.c.position).over(order_by=feed_events.c.position)
    pairs = select(feed_events.c.position, following.label("following")).subquery("pairs")
    gap = func.concat("after ", pairs.c.position)
    return select(gap).where(pairs.c.following != pairs.c.position + 1).order_by(pairs.c.position)


INVARIANTS = (
    Invariant(
        "the positions of the feed have no gaps",
        _gaps(),
        "Only Holdfast may delete events of the feed, from the oldest on. Whoever reads on at a gap is answered"
        " position-gone.",
        misses="An event that was never appended, and events that are missing at the beginning or at the end.",
    ),
)
