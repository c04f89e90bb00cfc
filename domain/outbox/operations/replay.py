"""Sending again what was delivered or is dead: the same event, in the same order, marked as replayed."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, func, literal, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from domain.outbox.operations.bulk_change import Batch, Changed, change
from domain.outbox.operations.selection import Among, Selection
from domain.outbox.routes import STEPS
from domain.outbox.table import outbox

#: What PostgreSQL knows the turn of replaying by: "replay" in ASCII.
TURN = 0x7265706C6179


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """How many rows a selection means, and how many steps that were answered it leaves out."""

    rows: int
    answered_steps: int = 0


def count(session: Session, selection: Selection) -> Count:
    """Count what `send_again` would replay if it went on to the end."""
    steps = func.count().filter(_is_answered_step(selection))
    total, left_out = session.execute(select(func.count(), steps).where(*selection.conditions())).one()
    return Count(rows=total - left_out, answered_steps=left_out)


def send_again(session: Session, batch: Batch) -> Changed:
    """Make the rows of a batch pending again, in order of id.

    What goes on over several batches needs a selection `as_of_now`. Nobody delivers a row
    that is dead or processed, so no worker is in the way. The answer to a step that was
    delivered has changed its reservation, so such a row stays as it is.
    """
    # Two replays at once could each take some rows of one reservation, and commit the later ones first.
    session.execute(select(func.pg_advisory_xact_lock(TURN)))
    return change(session, "replay", batch, _AGAIN, ~_is_answered_step(batch.selection))


# Not ready at once, but waiting until now: whoever holds the lane at this moment may have read
# past some of these rows and not past others. Only the next hold, which reads from the beginning,
# makes them ready, and until then what follows them waits as well.
_AGAIN: dict[ColumnElement[Any], Any] = {
    outbox.c.processed_at: None,
    outbox.c.dead_at: None,
    outbox.c.available_at: func.now(),
    outbox.c.unreachable_at: None,
    outbox.c.attempts: 0,
    outbox.c.replayed_at: func.now(),
    # The header tells who gets it that it was sent before, and one replay from the next.
    outbox.c.headers: outbox.c.headers.op("||", return_type=JSONB())(func.jsonb_build_object("replayed", func.now())),
}


def _is_answered_step(selection: Selection) -> ColumnElement[bool]:
    return outbox.c.type.in_(STEPS) if selection.among is Among.DELIVERED else literal(False)
