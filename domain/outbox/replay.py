"""Sending again what was delivered or is dead: the same event, in the same order, marked as replayed."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, func, literal, select, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from domain.outbox.routes import STEPS
from domain.outbox.selection import Among, Selection
from domain.outbox.table import outbox

#: Rows replayed or discarded in one transaction.
BATCH = 500

#: What PostgreSQL knows the turn of replaying by: "replay" in ASCII.
TURN = 0x7265706C6179


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """How many rows were changed, and the id to go on from; None when there are no more."""

    done: int
    after: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """How many rows a selection means, and how many steps that were answered it leaves out."""

    rows: int
    answered_steps: int = 0


def count(session: Session, selection: Selection) -> Count:
    """Count what `batch` would replay if it went on to the end."""
    steps = func.count().filter(_is_answered_step(selection))
    total, left_out = session.execute(select(func.count(), steps).where(*selection.conditions())).one()
    return Count(rows=total - left_out, answered_steps=left_out)


def batch(session: Session, selection: Selection, *, after: int = 0, limit: int = BATCH) -> Batch:
    """Make up to `limit` rows of a selection pending again, in order of id, from beyond the id `after`.

    What goes on over several batches needs a selection `as_of_now`. Nobody delivers a row
    that is dead or processed, so no worker is in the way. The answer to a step that was
    delivered has changed its reservation, so such a row stays as it is.
    """
    # Two replays at once could each take some rows of one reservation, and commit the later ones first.
    session.execute(select(func.pg_advisory_xact_lock(TURN)))
    chosen = pick(selection, after, limit, ~_is_answered_step(selection))
    again = update(outbox).where(outbox.c.id == chosen.c.id).values(_AGAIN).returning(outbox.c.id)
    return outcome(session.execute(again).scalars().all(), limit)


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


def pick(selection: Selection, after: int, limit: int, *more: ColumnElement[bool]) -> Any:
    """Return the next rows of a selection, locked: without those that are being deleted or replayed."""
    return (
        select(outbox.c.id)
        .where(*selection.conditions(), *more, outbox.c.id > after)
        .order_by(outbox.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("chosen")
    )


def outcome(ids: Any, limit: int) -> Batch:
    """Return what a batch has done, from the ids of the rows that it has changed."""
    return Batch(done=len(ids), after=max(ids) if len(ids) == limit else None)
