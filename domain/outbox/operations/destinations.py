"""What an operator can do with a destination: pause it, resume it, probe it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, case, func, or_, select, update
from sqlalchemy.orm import Session

from domain.access import audit
from domain.access.audit import AuditEntry, audit_entries
from domain.outbox.delivery import breaker
from domain.outbox.table import destinations, outbox, ready, waiting
from domain.runtime.errors import UnknownDestination

#: The waiting rows that a probe makes due at once. The others become due at their own time.
PROBED = 10_000


class Condition(StrEnum):
    """UP: rows are sent. PAUSED: nothing is sent until an operator resumes it. DOWN: one probe now and then."""

    UP = "up"
    PAUSED = "paused"
    DOWN = "down"


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationStatus:
    """The status of a destination. `failures` counts consecutive failures, probes included: above 0 it is down."""

    name: str
    paused: bool
    paused_at: datetime | None
    reason: str | None
    opened_at: datetime | None
    next_probe_at: datetime | None
    failures: int

    @property
    def condition(self) -> Condition:
        if self.paused:
            return Condition.PAUSED
        return Condition.DOWN if self.failures else Condition.UP


#: When an operator paused it. A destination that paused itself, by answering 410, has no audit entry.
_paused_at = (
    select(case((audit_entries.c.action == "pause", audit.readable(audit_entries.c.happened_at))))
    .where(destinations.c.paused, audit_entries.c.action.in_(("pause", "resume")))
    .where(audit_entries.c.selection["destination"].astext == destinations.c.name)
    .order_by(audit_entries.c.id.desc())
    .limit(1)
    .correlate(destinations)
    .scalar_subquery()
)

#: The columns of a DestinationStatus without its name. A destination that only rows name is taken to be up.
FACTS: Sequence[ColumnElement[Any]] = (
    func.coalesce(destinations.c.paused, False).label("paused"),
    _paused_at.label("paused_at"),
    destinations.c.reason,
    destinations.c.opened_at,
    destinations.c.open_until.label("next_probe_at"),
    func.coalesce(destinations.c.failures, 0).label("failures"),
)


def lock(session: Session, name: str) -> DestinationStatus:
    """Lock a destination until the transaction ends. Raises UnknownDestination."""
    known = select(destinations.c.name, *FACTS).where(destinations.c.name == name).with_for_update(of=destinations)
    found = session.execute(known).one_or_none()
    if found is None:
        names = session.execute(select(destinations.c.name).order_by(destinations.c.name)).scalars()
        raise UnknownDestination(name, ", ".join(names) or "none yet")
    return DestinationStatus(**found._mapping)


def held_back(session: Session, names: Collection[str]) -> Sequence[DestinationStatus]:
    """Return those of these destinations that are paused or down and have pending rows, in order of name."""
    is_held_back = or_(destinations.c.paused, destinations.c.failures > 0)
    its_rows = select(outbox.c.id).where(outbox.c.destination == destinations.c.name).correlate(destinations)
    has_rows = or_(its_rows.where(ready).exists(), its_rows.where(waiting).exists())
    found = select(destinations.c.name, *FACTS).where(destinations.c.name.in_(names), is_held_back, has_rows)
    return [DestinationStatus(**one._mapping) for one in session.execute(found.order_by(destinations.c.name))]


def pause(session: Session, name: str, entry: AuditEntry) -> bool:
    """Send nothing more to a destination; its rows wait. Return whether this changes anything.

    Raises UnknownDestination.
    """
    if lock(session, name).paused:
        return False
    breaker.pause(session, name, reason=f"{entry.why} ({entry.who})")
    _record(session, "pause", name, entry)
    return True


def resume(session: Session, name: str, entry: AuditEntry) -> bool:
    """Send again to a destination that is paused. Return whether this changes anything.

    Raises UnknownDestination.
    """
    if not lock(session, name).paused:
        return False
    session.execute(update(destinations).where(destinations.c.name == name).values(paused=False, reason=None))
    _record(session, "resume", name, entry)
    return True


def probe(session: Session, name: str, entry: AuditEntry) -> bool:
    """Have the next worker probe a destination that is down, and not paused. Return whether this changes anything.

    Rows that wait because of the outage become due, so that there is a row to probe with.
    Raises UnknownDestination.
    """
    found = lock(session, name)
    if found.paused or found.failures == 0:
        return False
    breaker.leave_half_open(session, name)
    outage = or_(outbox.c.unreachable_at.is_not(None), outbox.c.attempts == 0)
    chosen = (
        select(outbox.c.id)
        .where(waiting, outbox.c.destination == name, outbox.c.available_at > func.now(), outage)
        .order_by(outbox.c.available_at, outbox.c.id)
        .limit(PROBED)
        .with_for_update(skip_locked=True)
        .cte("chosen")
    )
    due = update(outbox).where(outbox.c.id == chosen.c.id, waiting).values(available_at=func.now())
    rows = len(session.execute(due.returning(outbox.c.id)).all())
    _record(session, "probe", name, entry, rows=rows)
    return True


def _record(session: Session, action: str, name: str, entry: AuditEntry, *, rows: int = 0) -> None:
    audit.record(session, action, who=entry.who, why=entry.why, selection={"destination": name}, rows=rows)
