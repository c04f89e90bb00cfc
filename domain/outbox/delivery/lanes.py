"""Lanes: registering them, renewing their leases, releasing them. All times are the database's."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    SmallInteger,
    String,
    TableValuedAlias,
    and_,
    bindparam,
    case,
    func,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from domain.outbox.delivery import breaker
from domain.outbox.table import LANES, destinations, lanes
from domain.runtime.database import arrays, commit_without_waiting, lists

#: The lanes of a worker that is frozen or cut off are free again after this time at most; those of a killed one are as
#: soon as its session ends (see `liveness`). Leases are renewed once per second, so three renewals may fail. With a
#: tick of the scheduler, rows that were in flight are delivered again within 6 s.
LEASE = timedelta(seconds=4)

#: While a destination is down, one worker at a time may probe it: the one that has leased the probe. It does so by
#: setting `open_until` of the destination this far ahead. The lease of the probe is as long as that of the lane that
#: probes, and is renewed with it.
PROBE_LEASE = LEASE


@dataclass(frozen=True, slots=True, kw_only=True)
class LeasedLane:
    """A lane that one claim has leased for this process. `epoch` is the fence: the next claim has a higher one.

    `newest` is the id of the newest row at the time of the claim; a run over the lane reads no further (see
    `fetch`), and begins after `low_watermark`. When it has settled more, the watermark may rise to `commit_horizon` at
    most (see `low_watermark`). With `has_due_rows`, some waiting rows were due at the claim. With `probing`, rows go
    one by one. With `has_probe_lease`, this worker has leased the probe of the destination (see PROBE_LEASE), so the
    breaker stays open for others meanwhile. `recovered_at` is when the destination was last found up again. With a
    `liveness_key` the claim ends with the process (see `liveness`).

    Two of them are equal if they are of the same claim: a run over the lane changes the rest.
    """

    destination: str
    number: int
    epoch: int
    holder: str
    probing: bool = field(compare=False)
    has_due_rows: bool = field(compare=False)
    newest: int = field(compare=False)
    low_watermark: int = field(compare=False)
    commit_horizon: int = field(compare=False)
    has_probe_lease: bool = field(compare=False)
    recovered_at: datetime | None = field(compare=False)
    liveness_key: int | None = field(default=None, compare=False)


def register(session: Session, names: Collection[str]) -> None:
    """Make destinations and their lanes known to the database. Known ones stay as they are."""
    for name in sorted(names):
        session.execute(insert(destinations).values(name=name).on_conflict_do_nothing())
        rows = [{"destination": name, "lane": number} for number in range(LANES)]
        session.execute(insert(lanes).values(rows).on_conflict_do_nothing())


def renew(session: Session, leased: Collection[LeasedLane]) -> set[LeasedLane]:
    """Prolong the leases of the lanes that are still ours, and the leases of their probes. Return those lanes.

    It waits for no lock: a lane that is locked is being settled, which prolongs its lease as well, or was claimed
    by another worker.
    """
    commit_without_waiting(session)
    found = set(map(tuple, session.execute(_RENEW, lists(_leased, **_names(list(leased)))).all()))
    renewed = {lane for lane in leased if (lane.destination, lane.number) in found}
    if probing := {lane.destination for lane in renewed if lane.probing}:
        _keep_probing(session, probing)
    return renewed


def _still_claimed(claims: TableValuedAlias, *columns: ColumnElement[Any]) -> Select[Any]:
    """Select the lanes that are still leased by these claims."""
    return (
        select(lanes.c.destination, lanes.c.lane, *columns)
        .join(claims, and_(lanes.c.destination == claims.c.destination, lanes.c.lane == claims.c.lane))
        .where(lanes.c.epoch == claims.c.epoch, lanes.c.holder == claims.c.holder)
    )


_CLAIM = {"destination": String, "lane": SmallInteger, "epoch": BigInteger, "holder": String}
_leased = arrays("leased", **_CLAIM)
_mine = _still_claimed(_leased).with_for_update(of=lanes, skip_locked=True).cte("mine")
_RENEW = (
    update(lanes)
    .where(lanes.c.destination == _mine.c.destination, lanes.c.lane == _mine.c.lane)
    .values(leased_until=func.clock_timestamp() + LEASE)
    .returning(lanes.c.destination, lanes.c.lane)
)


def _keep_probing(session: Session, names: Collection[str]) -> None:
    """Prolong the leases of probes that are under way. A probe that has ended has set another time, which is kept."""
    until = func.clock_timestamp() + PROBE_LEASE
    probed = update(destinations).where(destinations.c.name.in_(names), destinations.c.failures > 0)
    session.execute(probed.where(destinations.c.open_until < until).values(open_until=until))


def fence(session: Session, lane: LeasedLane) -> datetime | None:
    """Lock a lane and prolong its lease. Return the time, or None if another worker has claimed it since."""
    return session.execute(_KEEP, _claimed(lane)).scalar_one_or_none()


def release(session: Session, lane: LeasedLane, *, settled_up_to: int = 0) -> datetime | None:
    """Release a lane, and with it a probe that has shown nothing. Return the time, or None if it is not ours any more.

    Nobody can claim the lane before the transaction ends, so this also fences everything else in the transaction.
    `settled_up_to` is an id up to which this run has left no row ready: none of those that were visible to it. So the
    low watermark may rise to that id, but not beyond the commit horizon.
    """
    watermarks = {"found": lane.low_watermark, "risen": _risen(lane, settled_up_to)}
    released = session.execute(_RELEASE, _claimed(lane) | watermarks).scalar_one_or_none()
    if released and lane.probing and lane.has_probe_lease:
        breaker.leave_half_open(session, lane.destination)
    return released


def release_all(session: Session, settled_up_to: Mapping[LeasedLane, int]) -> tuple[datetime, set[LeasedLane]] | None:
    """Release several lanes. Return the time and those that were ours, or None if none was any more. See `release`."""
    leased = list(settled_up_to)
    claims = lists(
        _settled,
        **_names(leased),
        found=[lane.low_watermark for lane in leased],
        risen=[_risen(lane, settled_up_to[lane]) for lane in leased],
    )
    released = session.execute(_RELEASE_ALL, claims).all()
    numbers = {one.lane for one in released}
    return (released[0].at, {lane for lane in leased if lane.number in numbers}) if released else None


def _risen(lane: LeasedLane, settled_up_to: int) -> int:
    return max(lane.low_watermark, min(settled_up_to, lane.commit_horizon))


def _names(leased: Sequence[LeasedLane]) -> dict[str, Sequence[Any]]:
    return {
        "destination": [lane.destination for lane in leased],
        "lane": [lane.number for lane in leased],
        "epoch": [lane.epoch for lane in leased],
        "holder": [lane.holder for lane in leased],
    }


def _claimed(lane: LeasedLane) -> dict[str, object]:
    return {"ours": lane.destination, "number": lane.number, "claimed": lane.epoch, "by": lane.holder}


_ours = (
    update(lanes)
    .where(lanes.c.destination == bindparam("ours"), lanes.c.lane == bindparam("number"))
    .where(lanes.c.epoch == bindparam("claimed"), lanes.c.holder == bindparam("by"))
    .returning(func.clock_timestamp())
)
_KEEP = _ours.values(leased_until=func.clock_timestamp() + LEASE)


def _watermark(found: ColumnElement[int], risen: ColumnElement[int]) -> ColumnElement[int]:
    """Return what the low watermark becomes. One that was reset meanwhile stays reset."""
    return case((lanes.c.low_watermark == found, risen), else_=lanes.c.low_watermark)


#: What a lane stores that nobody has leased any more.
FREE = {"holder": None, "liveness_key": None, "leased_until": func.clock_timestamp()}

_FOUND, _RISEN = (bindparam(name, type_=BigInteger) for name in ("found", "risen"))
_RELEASE = _ours.values(**FREE, low_watermark=_watermark(_FOUND, _RISEN))
_settled = arrays("settled", **_CLAIM, found=BigInteger, risen=BigInteger)
# In the order of their key, as whoever locks several rows does.
_to_release = (
    _still_claimed(_settled, _settled.c.found, _settled.c.risen)
    .order_by(lanes.c.destination, lanes.c.lane)
    .with_for_update(of=lanes, key_share=True)
    .cte("to_release")
)
_RELEASE_ALL = (
    update(lanes)
    .where(lanes.c.destination == _to_release.c.destination, lanes.c.lane == _to_release.c.lane)
    .values(**FREE, low_watermark=_watermark(_to_release.c.found, _to_release.c.risen))
    .returning(lanes.c.lane, func.clock_timestamp().label("at"))
)
