"""The settlement of rows: what is written for the outcomes of their deliveries."""

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    DateTime,
    Float,
    SmallInteger,
    String,
    Text,
    Uuid,
    bindparam,
    case,
    func,
    literal_column,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from domain.outbox.delivery import breaker
from domain.outbox.delivery.blame import Neighbours, Verdict, verdict
from domain.outbox.delivery.history import History
from domain.outbox.delivery.outcomes import (
    NO_ANSWER,
    Delivery,
    Failed,
    InFlight,
    Outcome,
    Rejected,
    Unreachable,
    error_of,
    excerpt,
    is_processed,
    is_taken,
)
from domain.outbox.delivery.row_updates import Circumstances, RetryPolicy, RowUpdate, row_updates
from domain.outbox.table import BY_AGGREGATE, Row, calls, outbox, pending, waiting, within
from domain.runtime.database import arrays, is_given, lists


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """What was written: the rows that were processed, and the rows that are dead letters now.

    `waiting` is by how many more rows wait. It is negative if more rows are due now than have begun to wait. A row of
    a call in flight is counted when the call ends.

    `processed` rows were delivered, or their step was answered or had nothing left to ask. Operators see all of them
    as delivered.

    `is_up` says that the batch has shown that the destination is up; `down` is the reason if it was found down. Both
    may be missing. `fenced` were not written, as their lanes are not ours any more. `read_on_after` is the id after
    which this run may fetch: not past a row that was not sent and is still ready, or a later row of its aggregate would
    overtake it. `at` is the database's time.
    """

    at: datetime
    processed: Sequence[Delivery]
    dead: Sequence[RowUpdate]
    waiting: int
    read_on_after: int
    is_up: bool
    down: str | None
    fenced: Sequence[Delivery] = ()


#: What is left to write when a commit was not answered, and had been done.
NOTHING_SETTLED = Settlement(
    at=datetime.min.replace(tzinfo=UTC),
    processed=(),
    dead=(),
    waiting=0,
    read_on_after=0,
    is_up=False,
    down=None,
)


def still_pending(session: Session, rows: Sequence[Row]) -> Collection[int]:
    """Return the ids of those rows that are neither processed nor dead."""
    found = select(outbox.c.id).where(is_given(outbox.c.id), pending)
    return set(session.execute(found, {"ids": [row.id for row in rows]}).scalars())


def write(
    session: Session,
    destination: str,
    deliveries: Sequence[Delivery],
    *,
    at: datetime,
    retry_policy: RetryPolicy,
    history: History,
    probing: bool = False,
    liveness_key: int | None = None,
    since: datetime | None = None,
) -> Settlement:
    """Write the outcomes of rows, in order of id, that the caller has made sure of: nobody else can settle them.

    `at` is the database's time. `history` is what the destination has lately answered this process; the rows are added
    to it. With `probing`, they were the probe of a destination that was down: if it has not ended, the next one is due
    as after one that has failed. With a `liveness_key`, the rows of calls in flight are sent again as soon as the
    process has ended. `since` is for calls that began before that time (see `History.add`).
    """
    processed = [(row, outcome) for row, outcome in deliveries if is_processed(outcome)]
    in_flight = [row.id for row, outcome in deliveries if isinstance(outcome, InFlight)]
    is_all = len(processed) == len(deliveries)
    waits = _waits_until(session, destination, deliveries)
    if processed:
        session.execute(_MARK_PROCESSED, {"ids": [row.id for row, _ in processed]})
    history.add(at, deliveries, since=since)
    failures = 0 if is_all else breaker.lock(session, destination)
    verdicts = {} if is_all else _verdicts(deliveries, history, is_open=failures > 0, is_late=since is not None)
    # A row that was rejected for what it is has been read, so the destination is up.
    is_up = any(is_taken(outcome) for _, outcome in deliveries) or Verdict.DEAD in verdicts.values()
    # A call that is answered late may have been a probe.
    if is_up and (probing or since is not None):
        breaker.close(session, destination, opened_before=since)
    down: list[Outcome] = []
    if verdicts:
        down += [outcome for row, outcome in deliveries if verdicts.get(row.id) is Verdict.DOWN]
    if probing and in_flight and not is_up:
        down.append(NO_ANSWER)
    open_for = timedelta(0)
    if down:
        open_for = _open_breaker(session, destination, failures, down, is_gone=history.is_gone, probing=probing)
    circumstances = Circumstances(retry_policy, verdicts, waits, at, open_for, random.random)
    updates = [] if is_all else row_updates(deliveries, circumstances)
    if updates:
        session.execute(_UPDATE_ROWS, _new_values_of(updates, at))
    if in_flight:
        _note_calls(session, in_flight, liveness_key)
    return Settlement(
        at=at,
        processed=processed,
        dead=[one for one in updates if one.dead],
        waiting=sum(one.waits_after(at) for one in updates) - len(in_flight),
        read_on_after=_read_on_after(deliveries, processed, updates),
        is_up=is_up,
        down=error_of(down[0]) if down else None,
    )


def _note_calls(session: Session, row_ids: Sequence[int], liveness_key: int | None) -> None:
    insertion = insert(calls).values([{"id": row_id, "liveness_key": liveness_key} for row_id in row_ids])
    newest = {"liveness_key": insertion.excluded.liveness_key}
    session.execute(insertion.on_conflict_do_update(index_elements=[calls.c.id], set_=newest))


def _waits_until(session: Session, destination: str, deliveries: Sequence[Delivery]) -> Mapping[UUID, datetime]:
    """Some rows were not sent because an earlier row of their aggregate waits. Return until when that one waits.

    The call of the earlier row may have ended since the rows were fetched. Whoever settles that holds the row until
    these rows can be seen to wait, or has ended before.
    """
    behind = {row.aggregate_id for row, _ in deliveries if row.waits_until}
    if not behind:
        return {}
    heads = session.execute(_HEADS, {"destination": destination} | lists(_aggregate, aggregate_id=sorted(behind)))
    return {head.aggregate_id: head.available_at for head in heads}


def _verdicts(
    deliveries: Sequence[Delivery], history: History, *, is_open: bool, is_late: bool
) -> Mapping[int, Verdict]:
    """Return whose fault it is that rows were not taken, by their ids. The history has the batch."""
    verdicts = {}
    for row, outcome in deliveries:
        if isinstance(outcome, Failed | Rejected | Unreachable):
            neighbours = history.neighbours_of(row)
            # Another process may have found the destination down after all that this one has seen.
            if is_open and neighbours is not Neighbours.ALL_REFUSED:
                neighbours = Neighbours.NEVER_TAKEN
            found = verdict(outcome, neighbours)
            # The probes say whether the destination is still down. A call that began before them does not.
            verdicts[row.id] = Verdict.IN_DOUBT if found is Verdict.DOWN and is_open and is_late else found
    return verdicts


def _read_on_after(
    deliveries: Sequence[Delivery], processed: Sequence[Delivery], row_updates: Sequence[RowUpdate]
) -> int:
    if len(processed) + len(row_updates) == len(deliveries):
        return deliveries[-1][0].id
    done = {row.id for row, _ in processed} | {one.row.id for one in row_updates}
    return next(row.id for row, _ in deliveries if row.id not in done) - 1


_aggregate = arrays("behind", aggregate_id=Uuid)
_head = (
    select(outbox.c.aggregate_id, outbox.c.available_at)
    .where(waiting, within(BY_AGGREGATE, (bindparam("destination", type_=String), _aggregate.c.aggregate_id)))
    .order_by(*BY_AGGREGATE)
    .limit(1)
    .with_for_update(key_share=True)
    .correlate(_aggregate)
    .lateral("head")
)
_HEADS = select(_head).select_from(_aggregate.join(_head, true()))
_MARK_PROCESSED = update(outbox).where(is_given(outbox.c.id), pending).values(processed_at=func.clock_timestamp())


def _open_breaker(
    session: Session, destination: str, failures: int, down: Sequence[Outcome], *, is_gone: bool, probing: bool
) -> timedelta:
    """Open the breaker after an outage, or pause a destination that is gone. Return how long the breaker is open."""
    if not is_gone:
        return breaker.trip(session, destination, failures, down, probing=probing)
    breaker.pause(session, destination, reason=error_of(down[0]))
    return timedelta(0)


def _new_values_of(row_updates: Sequence[RowUpdate], at: datetime) -> Mapping[str, Sequence[Any]]:
    return lists(
        _new_values,
        id=[one.row.id for one in row_updates],
        attempts=[one.attempts for one in row_updates],
        wait=[None if one.wait is None else one.wait.total_seconds() for one in row_updates],
        until=[one.until for one in row_updates],
        error=[one.error and excerpt(one.error) for one in row_updates],
        dead=[one.dead for one in row_updates],
        refused_at=[at if one.refused else None for one in row_updates],
    )


_new_values = arrays(
    "new_values",
    id=BigInteger,
    attempts=SmallInteger,
    wait=Float,
    until=DateTime(timezone=True),
    error=Text,
    dead=Boolean,
    refused_at=DateTime(timezone=True),
)
_second: ColumnElement[timedelta] = literal_column("interval '1 second'")
_UPDATE_ROWS = (
    update(outbox)
    .where(outbox.c.id == _new_values.c.id, pending)
    .values(
        attempts=_new_values.c.attempts,
        available_at=func.coalesce(_new_values.c.until, func.now() + _new_values.c.wait * _second),
        last_error=func.coalesce(_new_values.c.error, outbox.c.last_error),
        dead_at=case((_new_values.c.dead, func.now())),
        unreachable_at=func.coalesce(_new_values.c.refused_at, outbox.c.unreachable_at),
    )
)
