"""Destinations as an operator sees them: how each fares, and what can be done about it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    String,
    cast,
    func,
    literal,
    null,
    or_,
    select,
    true,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, aggregate_order_by
from sqlalchemy.orm import Session

from domain.database import CLOCK
from domain.errors import UnknownDestination
from domain.outbox import audit, breaker
from domain.outbox.audit import Deed
from domain.outbox.table import destinations, lanes, operations, outbox, ready, waiting

#: Rows that a probe lets try again with it. The others have their turn when their time comes.
PROBED = 10_000


class State(StrEnum):
    """What a destination gets: everything, nothing until it is resumed, or a probe now and then."""

    UP = "up"
    PAUSED = "paused"
    DOWN = "down"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a destination fares. `is_routed` says whether the present routes know it, `is_registered` the database.

    `pending` rows have not left, `waiting` ones of them have their time still to come.
    `dead` leaves out what was discarded. `holders` are the workers that have lanes of it.
    """

    name: str
    is_routed: bool
    is_registered: bool
    paused: bool
    paused_at: datetime | None
    reason: str | None
    opened_at: datetime | None
    next_probe_at: datetime | None
    failures: int
    pending: int
    waiting: int
    dead: int
    oldest_pending_at: datetime | None
    holders: Sequence[str]

    @property
    def state(self) -> State:
        if self.paused:
            return State.PAUSED
        return State.DOWN if self.failures else State.UP


def standings(session: Session, routed: Collection[str], *, only: str | None = None) -> Sequence[Standing]:
    """Return how all destinations fare, those that only old rows know included, by name."""
    return [Standing(is_routed=found.name in routed, **found._mapping) for found in session.execute(_standings(only))]


def _standings(only: str | None) -> Any:
    counts, held = _counts(only), _held()
    known = select(destinations.c.name).where(true() if only is None else destinations.c.name == only)
    named = union_all(known, select(counts.c.name)).subquery()
    names = select(named.c.name).distinct().subquery()
    return (
        select(
            names.c.name,
            destinations.c.name.is_not(None).label("is_registered"),
            func.coalesce(destinations.c.paused, False).label("paused"),
            _paused_at(),
            destinations.c.reason,
            destinations.c.opened_at,
            destinations.c.open_until.label("next_probe_at"),
            func.coalesce(destinations.c.failures, 0).label("failures"),
            *(func.coalesce(counts.c[name], 0).label(name) for name in ("pending", "waiting", "dead")),
            counts.c.oldest_pending_at,
            func.coalesce(held.c.holders, cast([], ARRAY(String))).label("holders"),
        )
        .outerjoin(destinations, destinations.c.name == names.c.name)
        .outerjoin(counts, counts.c.name == names.c.name)
        .outerjoin(held, held.c.destination == names.c.name)
        .order_by(names.c.name)
    )


def _counts(only: str | None) -> Any:
    """What there is of each kind, each kind read from an index of its own: the rest of the table costs nothing."""
    parts = union_all(
        _counted(only, ready, pending=1, waiting=0, dead=0),
        _counted(only, waiting, pending=1, waiting=1, dead=0),
        _counted(only, outbox.c.dead_at.is_not(None) & outbox.c.discarded_at.is_(None), pending=0, waiting=0, dead=1),
    ).subquery()
    sums = [cast(func.sum(parts.c[name]), BigInteger).label(name) for name in ("pending", "waiting", "dead")]
    return (
        select(parts.c.name, *sums, func.min(parts.c.oldest).label("oldest_pending_at"))
        .group_by(parts.c.name)
        .subquery("counts")
    )


def _counted(only: str | None, condition: ColumnElement[bool], **weights: int) -> Any:
    counts = [(func.count() * literal(weight)).label(name) for name, weight in weights.items()]
    since = func.coalesce(outbox.c.replayed_at, outbox.c.created_at)
    oldest = func.min(since) if weights["pending"] else null()
    return (
        select(outbox.c.destination.label("name"), *counts, oldest.label("oldest"))
        .where(condition, true() if only is None else outbox.c.destination == only)
        .group_by("name")
    )


def _held() -> Any:
    by_lane = aggregate_order_by(lanes.c.holder, lanes.c.lane)
    return (
        select(lanes.c.destination, func.array_agg(by_lane).label("holders"))
        .where(lanes.c.holder.is_not(None), lanes.c.leased_until > CLOCK)
        .group_by(lanes.c.destination)
        .subquery("held")
    )


def _paused_at() -> Any:
    """When an operator paused it; nothing is written down where it paused itself by saying that it is gone."""
    return (
        select(operations.c.happened_at)
        .where(destinations.c.paused, operations.c.action == "pause")
        .where(operations.c.selection["destination"].astext == destinations.c.name)
        .order_by(operations.c.id.desc())
        .limit(1)
        .correlate(destinations)
        .scalar_subquery()
        .label("paused_at")
    )


def pause(session: Session, name: str, *, who: str, why: str) -> bool:
    """Send nothing more to a destination. What is recorded for it waits. Return whether that changes anything."""
    state = _lock(session, name)
    if state.paused:
        return False
    breaker.pause(session, name, reason=f"{why} ({who})")
    return _noted(session, "pause", name, who, why)


def resume(session: Session, name: str, *, who: str, why: str) -> bool:
    """Send again to a destination that is paused. Return whether that changes anything."""
    state = _lock(session, name)
    if not state.paused:
        return False
    session.execute(update(destinations).where(destinations.c.name == name).values(paused=False, reason=None))
    return _noted(session, "resume", name, who, why)


def probe(session: Session, name: str, *, who: str, why: str) -> bool:
    """Let the next worker try a destination that is down at once. Return whether that changes anything.

    What waits because it was down is due now, so that there is something to try it with.
    """
    state = _lock(session, name)
    if state.failures == 0:
        return False
    breaker.leave_half_open(session, name)
    outage = or_(outbox.c.unreachable_at.is_not(None), outbox.c.attempts == 0)
    found = (
        select(outbox.c.id)
        .where(waiting, outbox.c.destination == name, outbox.c.available_at > func.now(), outage)
        .order_by(outbox.c.available_at, outbox.c.id)
        .limit(PROBED)
        .with_for_update(skip_locked=True)
        .cte("found")
    )
    due = update(outbox).where(outbox.c.id == found.c.id, waiting).values(available_at=func.now())
    rows = len(session.execute(due.returning(outbox.c.id)).all())
    return _noted(session, "probe", name, who, why, rows)


def _lock(session: Session, name: str) -> Any:
    locked = select(destinations.c.paused, destinations.c.failures).where(destinations.c.name == name)
    found = session.execute(locked.with_for_update()).one_or_none()
    if found is None:
        known = session.execute(select(destinations.c.name).order_by(destinations.c.name)).scalars()
        raise UnknownDestination(name, ", ".join(known) or "none yet")
    return found


def _noted(session: Session, action: str, name: str, who: str, why: str, rows: int = 0) -> bool:
    audit.note(session, Deed(action=action, who=who, why=why, selection={"destination": name}), rows=rows)
    return True
