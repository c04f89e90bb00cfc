"""Lanes: claiming one, keeping it, giving it back. Every time is the database's."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    SmallInteger,
    String,
    Text,
    and_,
    any_,
    bindparam,
    case,
    cast,
    column,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.orm import Session

from domain.outbox.delivery import breaker
from domain.outbox.delivery.low_watermark import Horizon, View
from domain.outbox.table import LANES, destinations, lanes, outbox, ready, waiting
from domain.runtime.database import CLOCK, commit_without_waiting

#: A killed worker's lanes are free again after this long at most. Long enough that three
#: renewals, one a second, may fail; short enough that, with a tick of the scheduler, what it
#: had in hand is delivered again within 6 s.
LEASE = timedelta(seconds=4)

#: Who probes a destination that was down keeps others from it for as long as the lease of its lane lasts.
PROBE = LEASE


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """A lane that we hold. `epoch` is the fence: whoever claims it next has a higher one.

    `newest` is the id of the newest row at the time of the claim; this hold reads no
    further (see `fetch`). It need not read what is not beyond `settled_to`, the floor; and when
    it has settled more, the floor may rise to `complete_to` at the most (see `floor`).
    With `rows_to_wake` some waiting rows were due then. With `probing` rows go one by one; with
    `has_permit` the breaker is kept open for that.
    """

    destination: str
    number: int
    epoch: int
    holder: str
    probing: bool
    rows_to_wake: bool
    newest: int = 2**63 - 1
    settled_to: int = 0
    complete_to: int = 0
    has_permit: bool = False


def register(session: Session, names: Collection[str]) -> None:
    """Make destinations and their lanes known. Those that are known stay as they are."""
    for name in sorted(names):
        session.execute(insert(destinations).values(name=name).on_conflict_do_nothing())
        rows = [{"destination": name, "lane": number} for number in range(LANES)]
        session.execute(insert(lanes).values(rows).on_conflict_do_nothing())


def claim(session: Session, names: Collection[str], holder: str, horizon: Horizon | None = None) -> Lane | None:
    """Take the lane that has rested longest among those that are free and have due rows.

    `holder` must be new for each claim. Without a horizon this hold leaves the floor of the
    lane where it is; with one, this is the first thing that its transaction does. Returns None
    when there is nothing to do.
    """
    taken = session.execute(_CLAIM, {"names": list(names), "holder": holder}).one_or_none()
    if taken is None:
        return None
    *facts, ended_below, begun_below, _ = taken
    lane = Lane(**dict(zip(_FACTS, facts, strict=True)))
    if horizon:
        view = View(newest=lane.newest, ended_below=ended_below, begun_below=begun_below)
        lane = replace(lane, complete_to=horizon.complete_to(view))
    if lane.probing and not _may_probe(session, lane):
        session.rollback()
        return None
    return replace(lane, has_permit=lane.probing)


_FACTS = ("destination", "number", "epoch", "holder", "probing", "rows_to_wake", "newest", "settled_to")


_has_ready = (
    select(outbox.c.id)
    .where(ready, outbox.c.destination == lanes.c.destination, outbox.c.lane == lanes.c.lane)
    .where(outbox.c.id > lanes.c.settled_to)
    .limit(1)
    .correlate(lanes)
    .scalar_subquery()
    .is_not(None)
)
_has_due = (
    select(outbox.c.id)
    .where(waiting, outbox.c.destination == lanes.c.destination, outbox.c.lane == lanes.c.lane)
    .where(outbox.c.available_at <= CLOCK)
    .limit(1)
    .correlate(lanes)
    .scalar_subquery()
    .is_not(None)
)
# As no index has it, so that the few pages of the lanes are read from end to end. Under an old
# snapshot each claim and each release leaves a version that stays, and an index would lead from
# one to the other, here and there.
_destination = lanes.c.destination.concat("")
_may_pass = or_(destinations.c.open_until.is_(None), destinations.c.open_until <= func.clock_timestamp())
_free = (
    select(
        lanes.c.destination,
        lanes.c.lane,
        (destinations.c.failures > 0).label("probing"),
        _has_due.label("rows_to_wake"),
    )
    .join(destinations, destinations.c.name == _destination)
    .where(_destination == any_(cast(bindparam("names"), ARRAY(String))))
    .where(or_(lanes.c.leased_until.is_(None), lanes.c.leased_until <= func.clock_timestamp()))
    .where(~destinations.c.paused, _may_pass)
    .where(or_(_has_ready, _has_due))
    .order_by(lanes.c.leased_until.nulls_first())
    .limit(1)
    .with_for_update(of=lanes, skip_locked=True)
    .cte("free")
)


def _number(transaction: ColumnElement[Any]) -> ColumnElement[int]:
    """Return the id of a transaction, in 64 bits and so never given twice, as a number."""
    return cast(cast(transaction, Text), BigInteger)


_CLAIM = (
    update(lanes)
    .where(lanes.c.destination == _free.c.destination, lanes.c.lane == _free.c.lane)
    .values(epoch=lanes.c.epoch + 1, holder=bindparam("holder"), leased_until=func.clock_timestamp() + LEASE)
    .returning(
        lanes.c.destination,
        lanes.c.lane.label("number"),
        lanes.c.epoch,
        lanes.c.holder,
        _free.c.probing,
        _free.c.rows_to_wake,
        func.coalesce(select(func.max(outbox.c.id)).scalar_subquery(), 0).label("newest"),
        lanes.c.settled_to,
        _number(func.pg_snapshot_xmin(func.pg_current_snapshot())),
        # Not the snapshot's xmax: that is one past the highest transaction that has ended, and
        # who is younger may have begun. The id of this one is given after all of theirs.
        _number(func.pg_current_xact_id()),
        # The commit need not wait for the disk. A claim that PostgreSQL forgets in a crash
        # does no harm: the fence names the holder as well as the epoch, and no two claims
        # have the same holder.
        func.set_config("synchronous_commit", "off", True),
    )
)


def _may_probe(session: Session, lane: Lane) -> bool:
    """Take the one permit to probe a destination that was down."""
    permit = (
        update(destinations)
        .where(destinations.c.name == lane.destination, _may_pass)
        .values(open_until=func.clock_timestamp() + PROBE)
    )
    return session.execute(permit.returning(destinations.c.name)).one_or_none() is not None


def renew(session: Session, held: Collection[Lane]) -> int:
    """Prolong the leases of the lanes that are still ours, and the permits of those that probe. Return how many.

    It waits for nobody: a lane that is locked is being settled, which prolongs its lease
    as well, or is lost.
    """
    commit_without_waiting(session)
    parameters = {
        "destinations": [lane.destination for lane in held],
        "numbers": [lane.number for lane in held],
        "epochs": [lane.epoch for lane in held],
        "holders": [lane.holder for lane in held],
    }
    renewed = set(map(tuple, session.execute(_RENEW, parameters).all()))
    probing = {lane.destination for lane in held if lane.probing and (lane.destination, lane.number) in renewed}
    if probing:
        _keep_probing(session, probing)
    return len(renewed)


_held = (
    func.unnest(
        cast(bindparam("destinations"), ARRAY(String)),
        cast(bindparam("numbers"), ARRAY(SmallInteger)),
        cast(bindparam("epochs"), ARRAY(BigInteger)),
        cast(bindparam("holders"), ARRAY(String)),
    )
    .table_valued(
        column("destination", String),
        column("lane", SmallInteger),
        column("epoch", BigInteger),
        column("holder", String),
    )
    .render_derived("held")
)
_mine = (
    select(lanes.c.destination, lanes.c.lane)
    .join(_held, and_(lanes.c.destination == _held.c.destination, lanes.c.lane == _held.c.lane))
    .where(lanes.c.epoch == _held.c.epoch, lanes.c.holder == _held.c.holder)
    .with_for_update(of=lanes, skip_locked=True)
    .cte("mine")
)
_RENEW = (
    update(lanes)
    .where(lanes.c.destination == _mine.c.destination, lanes.c.lane == _mine.c.lane)
    .values(leased_until=func.clock_timestamp() + LEASE)
    .returning(lanes.c.destination, lanes.c.lane)
)


def _keep_probing(session: Session, names: Collection[str]) -> None:
    """Prolong the permits of probes that are under way. One that has ended has left its own time, which stands."""
    until = func.clock_timestamp() + PROBE
    permit = update(destinations).where(destinations.c.name.in_(names), destinations.c.failures > 0)
    session.execute(permit.where(destinations.c.open_until < until).values(open_until=until))


def fence(session: Session, lane: Lane) -> datetime | None:
    """Lock a lane that we hold and prolong its lease. Return the time, or None if it is not ours any more."""
    return session.execute(_KEEP, _claimed(lane)).scalar_one_or_none()


def release(session: Session, lane: Lane, *, settled_to: int = 0) -> datetime | None:
    """Give a lane back, and with it a probe that has shown nothing. Return the time, or None if it is not ours.

    Nobody can claim it before the transaction ends, so this fences what else is in it. From its
    floor up to the id `settled_to`, this hold has left no row ready that it could see.
    """
    floors = {"found": lane.settled_to, "left": max(lane.settled_to, min(settled_to, lane.complete_to))}
    given = session.execute(_GIVE_BACK, _claimed(lane) | floors).scalar_one_or_none()
    if given and lane.probing and lane.has_permit:
        breaker.leave_half_open(session, lane.destination)
    return given


def _claimed(lane: Lane) -> dict[str, object]:
    return {"ours": lane.destination, "number": lane.number, "claimed": lane.epoch, "by": lane.holder}


_ours = (
    update(lanes)
    .where(lanes.c.destination == bindparam("ours"), lanes.c.lane == bindparam("number"))
    .where(lanes.c.epoch == bindparam("claimed"), lanes.c.holder == bindparam("by"))
    .returning(func.clock_timestamp())
)
_KEEP = _ours.values(leased_until=func.clock_timestamp() + LEASE)
_floor = case(
    # A floor that was taken away meanwhile stays away.
    (lanes.c.settled_to == bindparam("found", type_=BigInteger), bindparam("left", type_=BigInteger)),
    else_=lanes.c.settled_to,
)
_GIVE_BACK = _ours.values(holder=None, leased_until=func.clock_timestamp(), settled_to=_floor)
