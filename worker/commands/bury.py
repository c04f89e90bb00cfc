"""`bin/dead-letters bury`: take pending events out of delivery."""

from collections.abc import Mapping, Sequence
from typing import Any

import rich_click as click

from domain.access.audit import AuditEntry
from domain.fulfilment import burial
from domain.outbox.operations import routes_in_force
from domain.outbox.operations.burial import PendingRow, find
from domain.outbox.operations.selection import Among, Selection
from domain.reservations.events import RESERVATION_CONFIRM
from domain.runtime.logs import printable
from worker.commands import options
from worker.commands.command_line import DONE, Command
from worker.commands.output import print_json, print_wrapped, rows
from worker.commands.runner import fail, opened

MEMBERS = (
    "dry_run, buried (the number of events) and events, a list of id (the row), event_id, reservation_id, type,"
    " destination, attempts, error (the last one) and in_flight (whether a worker may be sending it at this moment)."
)

NOTHING_PENDING = (
    "No matching event is pending, so nothing was changed. An event that was delivered or is dead needs no burying;"
    " bin/why EVENT_ID says what became of it."
)

BURIED = (
    "What is buried is a dead letter and is not tried any more. Later events of its reservation are delivered at once."
)

SEND_AFTER_ALL = "Send it after all: bin/dead-letters replay --event {} --why TEXT"


@click.command(
    "bury",
    cls=Command,
    examples=[
        "bin/dead-letters bury --event 01939b52-3a1e-7000-8000-5c1f0e6a9d21 --dry-run",
        'bin/dead-letters bury --event 01939b52-3a1e-7000-8000-5c1f0e6a9d21 --why "No such room (OPS-7)"',
    ],
    exit_codes={
        0: "all matching pending events were buried, or listed by --dry-run",
        1: "no matching event is pending, or the database failed",
    },
)
@options.identities()
@options.audited()
@options.dry_run("List the events and change nothing.")
@options.as_json(MEMBERS)
def bury(who: str, why: str | None, dry_run: bool, as_json: bool, **identities: Any) -> int:
    """Take pending events out of delivery: they become dead letters at once.

    For an event that its destination will never take, or a reservation whose events must not be sent. Give --event or
    --reservation. Later events of the same reservation no longer wait for it. A hold whose confirmation is buried is
    cancelled, as when the service never answers.
    """
    if (identities["event_id"] is None) == (identities["reservation_id"] is None):
        raise click.UsageError("Give --event or --reservation: which pending events are to be buried.")
    with opened("Nothing was changed.") as (db, routes), db.begin() as session:
        selection = Selection(among=Among.PENDING, **identities)
        if dry_run:
            found = find(session, selection)
        else:
            found = burial.bury(session, selection, AuditEntry(who=who, why=why or ""), routes)
            if found:  # It may have recorded that holds have ended.
                routes_in_force.require(session, routes, who=who)
    if as_json:
        print_json(dry_run=dry_run, buried=0 if dry_run else len(found), events=[_members(row) for row in found])
    if not found:
        fail(NOTHING_PENDING)
    if not as_json:
        _print(found, dry_run=dry_run)
    return DONE


def _members(row: PendingRow) -> Mapping[str, object]:
    return {
        "id": row.id,
        "event_id": row.event_id,
        "reservation_id": row.aggregate_id,
        "type": row.type,
        "destination": row.destination,
        "attempts": row.attempts,
        "error": row.last_error,
        "in_flight": row.in_flight,
    }


def _print(found: Sequence[PendingRow], *, dry_run: bool) -> None:
    count = rows(len(found), "pending event")
    click.echo(f"{count} would be buried:" if dry_run else f"{count} buried:")
    for row in found:
        print_wrapped(_describe(row), "  ")
    if dry_run:
        click.echo("Dry run. Run again with --why TEXT to apply.")
        return
    print_wrapped(BURIED)
    # The hold of a confirmation has ended, so there is nothing left to ask.
    for row in (one for one in found if one.type != RESERVATION_CONFIRM):
        click.echo(SEND_AFTER_ALL.format(row.event_id))


def _describe(row: PendingRow) -> str:
    error = f" ({printable(row.last_error)})" if row.last_error else ""
    lines = [f"{row.type} to {row.destination}, event {row.event_id}, after {rows(row.attempts, 'attempt')}{error}"]
    if row.in_flight:
        lines.append(f"A worker may be sending it at this moment: {row.destination} may get it all the same.")
    if row.type == RESERVATION_CONFIRM:
        lines.append(
            f"With it, reservation {row.aggregate_id} is cancelled if it is still a hold, and {row.destination} is"
            " asked to release what it may have confirmed."
        )
    return "\n".join(lines)
