"""Replaying: delivered or dead rows are sent again, as the same events in the same order, marked as replayed."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, func, literal, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from domain.outbox.operations import bulk_change
from domain.outbox.operations.bulk_change import Batch, Changed
from domain.outbox.operations.selection import Among, Selection
from domain.outbox.table import outbox
from domain.runtime.errors import Invalid

#: The key of the advisory lock that lets one replay run at a time: "replay" in ASCII.
REPLAY_LOCK = 0x7265706C6179


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayCount:
    """How many rows a replay would send again, and how many delivered steps it would skip."""

    rows: int
    skipped_steps: int = 0


def count(session: Session, selection: Selection, step_types: Collection[str]) -> ReplayCount:
    """Count the rows that `replay` would send again if it ran to the end. Raises Invalid."""
    steps = func.count().filter(_is_answered_step(selection, step_types))
    total, skipped = session.execute(select(func.count(), steps).where(*selection.conditions())).one()
    return ReplayCount(rows=total - skipped, skipped_steps=skipped)


def replay(session: Session, batch: Batch, step_types: Collection[str]) -> Changed:
    """Make the rows of a batch pending again, in order of id. Raises Invalid.

    An operation of several batches needs a selection `as_of_now`. No worker delivers a row that is dead or
    processed, so none is in the way. The answer to a step that was delivered has changed its reservation, so such a
    row is skipped.
    """
    # Two replays at the same time could each take some rows of one reservation, and commit the later ones first.
    session.execute(select(func.pg_advisory_xact_lock(REPLAY_LOCK)))
    is_no_answered_step = ~_is_answered_step(batch.selection, step_types)
    return bulk_change.apply(session, "replay", batch, _PENDING_AGAIN, is_no_answered_step)


# The rows are not ready at once, but waiting until now: a worker that runs over the lane at this moment may have
# read past some of them and not past others. Only the next run, which reads from the beginning, makes them ready.
# Until then later rows of the same reservations wait as well.
_PENDING_AGAIN: dict[ColumnElement[Any], Any] = {
    outbox.c.processed_at: None,
    outbox.c.dead_at: None,
    outbox.c.available_at: func.now(),
    outbox.c.unreachable_at: None,
    outbox.c.attempts: 0,
    outbox.c.replayed_at: func.now(),
    # The header tells the consumer that the event was sent before, and tells one replay from the next.
    outbox.c.headers: outbox.c.headers.op("||", return_type=JSONB())(func.jsonb_build_object("replayed", func.now())),
}


def _is_answered_step(selection: Selection, step_types: Collection[str]) -> ColumnElement[bool]:
    if selection.among is not Among.DELIVERED:
        return literal(False)
    if selection.type in step_types:
        raise Invalid("type", f"{selection.type} is a step: its answer has changed the reservation, and stays valid")
    return outbox.c.type.in_(step_types)
