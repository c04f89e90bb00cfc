"""Claiming a lane: one short transaction that leases a free lane with due rows."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Integer,
    String,
    Text,
    any_,
    bindparam,
    case,
    cast,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from domain.outbox.delivery.commit_horizon import CommitHorizon, SnapshotView
from domain.outbox.delivery.lanes import LEASE, PROBE_LEASE, LeasedLane
from domain.outbox.delivery.low_watermark import has_ready_above, more_ready_than
from domain.outbox.delivery.outcomes import LONGEST_RETRY_AFTER
from domain.outbox.table import (
    BY_DUE_TIME,
    destinations,
    lanes,
    outbox,
    waiting,
    within,
)
from domain.runtime.database import CLOCK


@dataclass(eq=False)
class ProbeTaken(Exception):
    """Raised when another worker has just leased the probe of the destination: roll the claim back."""

    destination: str


def claim(
    session: Session,
    names: Collection[str],
    holder: str,
    commit_horizon: CommitHorizon,
    *,
    liveness_key: int | None = None,
) -> LeasedLane | None:
    """Lease the lane that has rested longest among those that are free and have due rows. None if there is none.

    The lanes of a destination that has to be probed come after those of the others.

    `holder` must be new for each claim. With a `liveness_key`, the lane is free as soon as nobody has locked that key.
    For the commit horizon, this must be the first statement of the transaction. Raises ProbeTaken.
    """
    claimed = session.execute(
        _CLAIM, {"names": list(names), "holder": holder, "liveness_key": liveness_key}
    ).one_or_none()
    if claimed is None:
        return None
    view = SnapshotView(newest=claimed.newest, ended_below=claimed.ended_below, begun_below=claimed.begun_below)
    lane = LeasedLane(
        destination=claimed.destination,
        number=claimed.number,
        epoch=claimed.epoch,
        holder=claimed.holder,
        probing=claimed.probing,
        has_due_rows=claimed.has_due_rows,
        newest=claimed.newest,
        low_watermark=claimed.low_watermark,
        commit_horizon=commit_horizon.at(view),
        has_probe_lease=claimed.probing,
        recovered_at=claimed.recovered_at,
        liveness_key=liveness_key,
    )
    if lane.probing:
        _lease_probe(session, lane.destination)
    return lane


def claim_more(session: Session, first: LeasedLane, *, few: int) -> Sequence[LeasedLane]:
    """Lease the other free lanes of a destination that have ready rows, but no more than a `few` each.

    Call it in the transaction that has claimed the `first` one. Lanes with waiting rows that are due are not leased.
    """
    claimant = {"holder": first.holder, "liveness_key": first.liveness_key}
    claimed = session.execute(_CLAIM_MORE, {"name": first.destination, "few": few} | claimant)
    return [
        replace(first, number=one.lane, epoch=one.epoch, low_watermark=one.low_watermark)
        for one in sorted(claimed, key=attrgetter("lane"))
    ]


_has_due = (
    select(outbox.c.id)
    .where(waiting, within(BY_DUE_TIME, (lanes.c.destination, lanes.c.lane), to=CLOCK))
    .order_by(*BY_DUE_TIME)
    .limit(1)
    .correlate(lanes)
    .scalar_subquery()
    .is_not(None)
)
# Written so that no index fits, and the few pages of the lanes are read from end to end. Under an old
# snapshot each claim and each release leaves a version of the row behind, and an index would lead from
# one version to the next, across many pages.
_destination = lanes.c.destination.concat("")
_clock = func.clock_timestamp()
# The clock may have stepped back since a time was written, after a failover or by NTP. A time that is later than it can
# be is taken for over: otherwise the lane, or the destination, would wait for as long as the step was.
_is_free = or_(
    lanes.c.holder.is_(None),
    lanes.c.leased_until.is_(None),
    lanes.c.leased_until <= _clock,
    lanes.c.leased_until > _clock + LEASE,
)
_rested_since = case((lanes.c.leased_until <= _clock, lanes.c.leased_until))
_may_be_called = or_(
    destinations.c.open_until.is_(None),
    destinations.c.open_until <= _clock,
    destinations.c.open_until > _clock + LONGEST_RETRY_AFTER,
    destinations.c.opened_at > _clock,
)
# As an array, so that it is there before the rows of any lane are looked for.
_callable = func.array(
    select(destinations.c.name)
    .where(destinations.c.name == any_(cast(bindparam("names"), ARRAY(String))))
    .where(~destinations.c.paused, _may_be_called)
    .scalar_subquery()
)
_free = (
    select(
        lanes.c.destination,
        lanes.c.lane,
        (destinations.c.failures > 0).label("probing"),
        destinations.c.recovered_at,
        _has_due.label("has_due_rows"),
    )
    .join(destinations, destinations.c.name == _destination)
    .where(_destination == any_(_callable))
    .where(_is_free)
    .where(or_(has_ready_above, _has_due))
    # A probe may wait: many are due together when many destinations are down, and the others feel nothing of them.
    .order_by(destinations.c.failures > 0, _rested_since.nulls_first())
    .limit(1)
    .with_for_update(of=lanes, skip_locked=True)
    .cte("free")
)


def _number(transaction: ColumnElement[Any]) -> ColumnElement[int]:
    """Return the id of a transaction as a number of 64 bits, which PostgreSQL never gives twice."""
    return cast(cast(transaction, Text), BigInteger)


_leased = {
    "epoch": lanes.c.epoch + 1,
    "holder": bindparam("holder"),
    "liveness_key": bindparam("liveness_key"),
    "leased_until": func.clock_timestamp() + LEASE,
}
_CLAIM = (
    update(lanes)
    .where(lanes.c.destination == _free.c.destination, lanes.c.lane == _free.c.lane)
    .values(_leased)
    .returning(
        lanes.c.destination,
        lanes.c.lane.label("number"),
        lanes.c.epoch,
        lanes.c.holder,
        _free.c.probing,
        _free.c.recovered_at,
        _free.c.has_due_rows,
        func.coalesce(select(func.max(outbox.c.id)).scalar_subquery(), 0).label("newest"),
        lanes.c.low_watermark,
        _number(func.pg_snapshot_xmin(func.pg_current_snapshot())).label("ended_below"),
        # Not the snapshot's xmax, which is one past the highest transaction that has ended: a younger
        # one may have begun. The id of this transaction is given after the ids of all of them.
        _number(func.pg_current_xact_id()).label("begun_below"),
        # The commit need not wait for the disk. A claim that PostgreSQL forgets in a crash does no harm:
        # the fence compares the holder as well as the epoch, and no two claims have the same holder.
        func.set_config("synchronous_commit", "off", True),
    )
)


_few = (
    select(lanes.c.destination, lanes.c.lane)
    .where(lanes.c.destination == bindparam("name"), _is_free, has_ready_above, ~_has_due)
    .where(~more_ready_than(bindparam("few", type_=Integer)))
    .with_for_update(skip_locked=True)
    .cte("few")
)
_CLAIM_MORE = (
    update(lanes)
    .where(lanes.c.destination == _few.c.destination, lanes.c.lane == _few.c.lane)
    .values(_leased)
    .returning(lanes.c.lane, lanes.c.epoch, lanes.c.low_watermark)
)


def _lease_probe(session: Session, destination: str) -> None:
    """Lease the probe of a destination that was down. Raises ProbeTaken."""
    leased = (
        update(destinations)
        .where(destinations.c.name == destination, _may_be_called)
        # After a step of the clock, the time of its opening would let every worker probe.
        .values(open_until=_clock + PROBE_LEASE, opened_at=func.least(destinations.c.opened_at, _clock))
    )
    if session.execute(leased.returning(destinations.c.name)).one_or_none() is None:
        raise ProbeTaken(destination)
