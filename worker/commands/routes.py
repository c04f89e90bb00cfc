"""`bin/destinations routes` and `use-routes`: the routes in force, and how they are changed."""

from collections.abc import Mapping, Sequence
from typing import Any

import rich_click as click

from domain.access.audit import AuditEntry
from domain.outbox import Routes
from domain.outbox.operations import routes_in_force as operations
from domain.outbox.operations.routes_in_force import Difference, Recorded, RoutesInForce, compare, recorded_by
from domain.runtime.logs import printable
from worker.commands import options
from worker.commands.command_line import DONE, TROUBLE, Command
from worker.commands.output import instant, print_json, print_wrapped, table
from worker.commands.runner import opened

MEMBERS = (
    "same (whether these routes are in force), in_force and here (for each destination, the types of its events, or"
    " null if no process has recorded anything yet), added, missing, changed (names of destinations), changed_at, who"
    " and why."
)

SAME = "These routes are those in force: every process with this environment records by them."

OTHER = (
    "Other routes are in force, so no process that records starts with this environment. If it is right, put its routes"
    ' in force, and then restart all processes: bin/destinations use-routes --why "…"'
)

NONE_YET = "No routes are in force yet: those of the first process that records will be."

CHANGED = (
    "These routes are in force now. Restart every process that records: APIs, gRPC services and workers. One that runs"
    " records by the former routes until then, and starts with these ones only."
)


@click.command(
    "routes",
    cls=Command,
    help="Compare the routes of this environment with those in force, by which every process records.",
    examples=["bin/destinations routes", "bin/destinations routes --json"],
    exit_codes={DONE: "the same routes, or none are in force yet", TROUBLE: "other routes are in force, or trouble"},
)
@options.as_json(MEMBERS)
def show(as_json: bool) -> int:
    with opened("No routes were read.") as (db, routes), db.begin() as session:
        in_force = operations.read(session)
    here = recorded_by(routes)
    difference = compare(in_force.recorded, here) if in_force else None
    if as_json:
        print_json(**_members(in_force, here, difference))
    else:
        _print(in_force, here, difference)
    return TROUBLE if difference else DONE


def _members(in_force: RoutesInForce | None, here: Recorded, difference: Difference | None) -> Mapping[str, Any]:
    if in_force is None or difference is None:
        nothing = dict.fromkeys(("added", "missing", "changed"), ())
        return {"same": False, "in_force": None, "here": here, **nothing, "changed_at": None, "who": None, "why": None}
    return {
        "same": not difference,
        "in_force": in_force.recorded,
        "here": here,
        "added": difference.added,
        "missing": difference.missing,
        "changed": difference.changed,
        "changed_at": in_force.changed_at,
        "who": in_force.who,
        "why": in_force.why,
    }


def _print(in_force: RoutesInForce | None, here: Recorded, difference: Difference | None) -> None:
    for line in table(("NAME", "IN FORCE", "HERE"), _lines(in_force.recorded if in_force else {}, here)):
        click.echo(line)
    if in_force:
        by = f" by {printable(in_force.who)}: {printable(in_force.why)}" if in_force.who else ""
        print_wrapped(f"In force since {instant(in_force.changed_at)}{by}")
    print_wrapped(NONE_YET if in_force is None else OTHER if difference else SAME)


def _lines(in_force: Recorded, here: Recorded) -> Sequence[Sequence[str]]:
    return [(name, _events(in_force, name), _events(here, name)) for name in sorted(in_force.keys() | here.keys())]


def _events(of: Recorded, name: str) -> str:
    return ", ".join(of[name]) if name in of else "-"


@click.command(
    "use-routes",
    cls=Command,
    help="Put the routes of this environment in force: from now on, every process that starts records by them.",
    examples=['bin/destinations use-routes --why "The shop gets an audit log (OPS-7)"'],
)
@options.audited()
@options.as_json("added, missing and changed (names of destinations; all empty if these routes were in force already).")
def use(who: str, why: str, as_json: bool) -> int:
    with opened("The routes in force may be changed or not: bin/destinations routes shows them.") as (db, routes):
        entry = AuditEntry(who=who, why=why)
        with db.begin() as session:
            before = operations.read(session)
            difference = operations.use(session, routes, entry)
    if as_json:
        print_json(added=difference.added, missing=difference.missing, changed=difference.changed)
    elif difference:
        _print_change(before, routes)
    else:
        click.echo("These routes are in force already. Nothing was changed.")
    return DONE


def _print_change(before: RoutesInForce | None, routes: Routes) -> None:
    click.echo(operations.describe(before.recorded if before else {}, recorded_by(routes)))
    print_wrapped(CHANGED)
