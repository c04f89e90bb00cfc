"""The routes in force: the destinations, and which events each of them gets, whoever records them.

If each process recorded by its own configuration alone, one without the routes file would record for other
destinations, and nobody would notice that the shop gets nothing. So the database has the routes in force, no process
records by others, and to change them is an operation of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from domain.access import audit
from domain.access.audit import AuditEntry, audit_entries
from domain.outbox.routes import Routes
from domain.outbox.table import routes_in_force as table
from domain.runtime.errors import ConfigurationError
from domain.runtime.logs import printable

#: The action of the audit entry of each change.
ACTION = "use-routes"

#: Stands for the events of a step. A release may have further ones: that is no change of the routes.
STEP = ("step",)

FIRST_PROCESS = "Until now, no process has recorded an event in this database"

#: For each destination that gets events, the patterns of their types, in alphabetical order; for a step STEP.
Recorded = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class RoutesInForce:
    """The routes in force, since when, and what the audit has of who has changed them and why."""

    recorded: Recorded
    changed_at: datetime
    who: str | None = None
    why: str | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """What other routes change of the routes in force: the names of destinations. It is false if that is nothing."""

    added: Sequence[str]
    missing: Sequence[str]
    changed: Sequence[str]

    def __bool__(self) -> bool:
        return bool(self.added or self.missing or self.changed)


def recorded_by(routes: Routes) -> Recorded:
    """Return what decides which rows are recorded: neither URLs nor anything else that may differ at any time.

    A destination that wants no event is like one that is not there.
    """
    sinks = {route.name: sorted({*route.events}) for route in routes.sinks if route.events}
    return sinks | {route.name: STEP for route in routes.steps}


def compare(in_force: Recorded, with_: Recorded) -> Difference:
    """Return what the second routes change of the first ones."""
    both = sorted(in_force.keys() & with_.keys())
    return Difference(
        added=sorted(with_.keys() - in_force.keys()),
        missing=sorted(in_force.keys() - with_.keys()),
        changed=[name for name in both if [*in_force[name]] != [*with_[name]]],
    )


def read(session: Session) -> RoutesInForce | None:
    """Return the routes in force, or None if nobody has recorded anything yet."""
    entry = (
        select(audit_entries.c.who, audit_entries.c.why)
        .where(audit_entries.c.action == ACTION)
        .order_by(audit_entries.c.id.desc())
        .limit(1)
        .subquery()
    )
    columns = table.c.destinations, table.c.changed_at, entry.c.who, entry.c.why
    found = session.execute(select(*columns).select_from(table.outerjoin(entry, table.c.id == 1))).one_or_none()
    return None if found is None else RoutesInForce(*found)


def require(session: Session, routes: Routes, *, who: str) -> None:
    """Let the caller record by these routes. The first one to do so puts them in force.

    Raises ConfigurationError if others are in force.
    """
    recorded = recorded_by(routes)
    in_force = read(session)
    if in_force is None:
        if _put(session, recorded, is_first=True):
            _audit(session, compare({}, recorded), AuditEntry(who=who, why=FIRST_PROCESS))
        in_force = read(session)
    assert in_force is not None
    if compare(in_force.recorded, recorded):
        raise ConfigurationError(describe_refusal(in_force, recorded))


def differ(session: Session, routes: Routes) -> bool:
    """Return whether other routes than these are in force."""
    in_force = read(session)
    return in_force is not None and bool(compare(in_force.recorded, recorded_by(routes)))


def use(session: Session, routes: Routes, entry: AuditEntry) -> Difference:
    """Put these routes in force. Return what that changes: if it is nothing, there is no audit entry."""
    recorded = recorded_by(routes)
    # Locks the row, so that the audit says what was changed even if two operators do so at the same time.
    session.execute(select(table.c.id).with_for_update())
    in_force = read(session)
    difference = compare(in_force.recorded if in_force else {}, recorded)
    if difference or in_force is None:
        _put(session, recorded)
        _audit(session, difference, entry)
    return difference


def _put(session: Session, recorded: Recorded, *, is_first: bool = False) -> bool:
    """Store the routes in force; if they must be the first ones, return whether they are."""
    given = insert(table).values(id=1, destinations={name: [*events] for name, events in recorded.items()})
    replacing = {"destinations": given.excluded.destinations, "changed_at": func.clock_timestamp()}
    if is_first:
        statement = given.on_conflict_do_nothing()
    else:
        statement = given.on_conflict_do_update(index_elements=["id"], set_=replacing)
    return session.execute(statement.returning(table.c.id)).one_or_none() is not None


def _audit(session: Session, difference: Difference, entry: AuditEntry) -> None:
    kinds = {"added": difference.added, "removed": difference.missing, "changed": difference.changed}
    selection = {kind: ", ".join(names) for kind, names in kinds.items() if names}
    audit.record(session, ACTION, who=entry.who, why=entry.why, selection=selection)


def describe_refusal(in_force: RoutesInForce, recorded: Recorded) -> str:
    """Return the message for a process whose routes are not in force: what differs, what that means, and what to do."""
    since = in_force.changed_at.astimezone(UTC)
    return (
        f"HOLDFAST_ROUTES: other routes are in force in this database, since {since:%Y-%m-%dT%H:%M:%SZ}"
        f" ({printable(in_force.who or 'unknown')}: {printable(in_force.why or 'no reason is known')}).\n"
        f"What the routes of this process change:\n{describe(in_force.recorded, recorded)}\n"
        "A process records each event for the destinations of its own routes. So those that it lacks would miss events,"
        " and nobody would notice.\n"
        "Does this process lack HOLDFAST_ROUTES or the URL of a service, or has it those of another installation?"
        " Correct that.\n"
        "Are the routes to be changed? Put those of this process in force, with its environment, and then restart all"
        ' processes:\n  bin/destinations use-routes --why "…"\n'
        "To see both: bin/destinations routes"
    )


def describe(in_force: Recorded, recorded: Recorded) -> str:
    """Return what other routes change of the routes in force, one destination a line."""
    difference = compare(in_force, recorded)
    lines = [f"  {name}: added, with {_events(recorded[name])}" for name in difference.added]
    lines += [f"  {name}: missing, had {_events(in_force[name])}" for name in difference.missing]
    for name in difference.changed:
        lines.append(f"  {name}: changed from {_events(in_force[name])} to {_events(recorded[name])}")
    return "\n".join(lines)


def _events(patterns: Sequence[str]) -> str:
    return "the events of its step" if tuple(patterns) == STEP else ", ".join(patterns)
