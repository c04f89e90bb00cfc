"""`bin/dead-letters`: look at the rows that are not tried any more, replay, discard or bury them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import rich_click as click

from domain.outbox.operations import dead_letters as letters
from domain.outbox.operations import replay as replays
from domain.outbox.operations.dead_letters import Letter
from domain.outbox.operations.selection import Among, Selection
from domain.runtime.logs import printable
from worker.commands import command_line, options, paced_changes
from worker.commands.bury import bury
from worker.commands.command_line import DONE, Group
from worker.commands.output import instant, print_json, print_wrapped, progress, rows
from worker.commands.paced_changes import BulkOperation, Terms
from worker.commands.replay import RATE, replaying
from worker.commands.runner import fail, opened

#: Characters that the list shows of an error. `bin/dead-letters show` prints all of it.
ERROR_LENGTH = 300

CHANGE_CODES = {
    0: "all matching dead letters were changed, or counted by --dry-run",
    1: "no dead letter matches, the run was stopped before its end, or the database failed",
}

GROUP_MEMBERS = (
    "groups, a list of group (its name), destination, type, error, rows, oldest, newest and example_event_id."
)

LETTER_MEMBERS = (
    "dead_letters, a list of id (the row), event_id, reservation_id, destination, type, group, attempts, error,"
    " created_at, dead_at, replayed_at, discarded_at and headers; with --payload also payload."
)


@click.group(
    "bin/dead-letters",
    cls=Group,
    examples=[
        "bin/dead-letters list --destination shop",
        'bin/dead-letters replay --group 0123abcd --why "The shop is back (OPS-7)"',
    ],
)
def dead_letters() -> None:
    """Look at dead letters, replay them, discard them, or bury pending events.

    A dead letter is a row of the outbox that is not tried any more: its destination rejected it, it failed too often,
    or an operator has buried it. Later events of its reservation are delivered all the same.
    """


@dead_letters.command(
    "list", examples=["bin/dead-letters list", "bin/dead-letters list --type 'booking.*' --error 503 --json"]
)
@options.filters("Dead")
@options.error_filters()
@options.as_json(GROUP_MEMBERS)
def list_groups(as_json: bool, **filters: Any) -> int:
    """List dead letters in groups with the same destination, the same type and similar errors."""
    selection = {**filters, "everything": True}
    with opened("No dead letter was read.") as (db, _), progress("Reading dead letters"), db.begin() as session:
        groups = letters.grouped(session, Selection(among=Among.DEAD, **selection))
    if as_json:
        print_json(groups=[_group_members(group) for group in groups])
    elif groups:
        _print_groups(groups)
    else:
        click.echo("No dead letters.")
    return DONE


def _group_members(group: letters.Group) -> Mapping[str, object]:
    return {
        "group": group.name,
        "destination": group.destination,
        "type": group.type,
        "error": group.error,
        "rows": group.rows,
        "oldest": group.oldest,
        "newest": group.newest,
        "example_event_id": group.example,
    }


def _print_groups(groups: Sequence[letters.Group]) -> None:
    for group in groups:
        click.echo(f"{group.name}  {rows(group.rows)}  {group.type} to {group.destination}")
        print_wrapped(printable(group.error)[:ERROR_LENGTH] or "no error was recorded", " " * 10)
        click.echo(f"          {instant(group.oldest)} to {instant(group.newest)}, event {group.example}\n")
    more = " or more" if len(groups) == letters.GROUPS else ""
    total = rows(sum(group.rows for group in groups), "dead letter")
    name = groups[0].name
    click.echo(f"{total} in {rows(len(groups), 'group')}{more}. # replaces the parts of an error that vary.\n")
    click.echo(f"Show one:        bin/dead-letters show {groups[0].example}")
    click.echo(f"Replay a group:  bin/dead-letters replay --group {name} --why TEXT   (--dry-run counts)")
    click.echo(f"Discard a group: bin/dead-letters discard --group {name} --why TEXT  (--dry-run counts)")


@dead_letters.command(
    "show",
    examples=[
        "bin/dead-letters show 01939b52-3a1e-7000-8000-5c1f0e6a9d21",
        "bin/dead-letters show 4711 --payload",
    ],
    exit_codes={1: "there is no such dead letter, or the database failed"},
)
@click.argument(
    "which", metavar="EVENT_ID|ROW", type=options.event_or_row, help="The id of an event, or the number of a row."
)
@click.option("--payload", is_flag=True, help="Print the payload as well. It may contain personal data.")
@options.as_json(LETTER_MEMBERS)
def show(which: UUID | int, payload: bool, as_json: bool) -> int:
    """Show the dead letters of an event, one for each destination, discarded ones included."""
    with opened("No dead letter was read.") as (db, _), db.begin() as session:
        found = letters.show(session, which)
    if as_json:
        print_json(dead_letters=[_letter_members(letter, payload=payload) for letter in found])
    if not found:
        fail(f"There is no dead letter {which}. If this is the id of an event, bin/why explains its deliveries.")
    if not as_json:
        for letter in found:
            _print_letter(letter, payload=payload)
    return DONE


def _letter_members(letter: Letter, *, payload: bool) -> Mapping[str, object]:
    members = {
        "id": letter.id,
        "event_id": letter.event_id,
        "reservation_id": letter.aggregate_id,
        "destination": letter.destination,
        "type": letter.type,
        "group": letter.group,
        "attempts": letter.attempts,
        "error": letter.last_error,
        "created_at": letter.created_at,
        "dead_at": letter.dead_at,
        "replayed_at": letter.replayed_at,
        "discarded_at": letter.discarded_at,
        "headers": json.loads(letter.headers),
    }
    return members | {"payload": json.loads(letter.payload)} if payload else members


def _print_letter(letter: Letter, *, payload: bool) -> None:
    facts = {
        "event": f"{letter.event_id}  {letter.type}",
        "reservation": str(letter.aggregate_id),
        "destination": letter.destination,
        "row": f"{letter.id}, of group {letter.group}",
        "recorded": instant(letter.created_at),
        "dead": f"{instant(letter.dead_at)}, after {rows(letter.attempts, 'attempt')}",
        "replayed": letter.replayed_at and instant(letter.replayed_at),
        "discarded": letter.discarded_at and f"{instant(letter.discarded_at)}; it can't be replayed any more",
        "headers": printable(letter.headers),
        "error": printable(letter.last_error) or "none was recorded",
    }
    for name, fact in facts.items():
        if fact:
            print_wrapped(f"{name:13}{fact}")
    if payload:
        click.echo(json.dumps(json.loads(letter.payload), indent=2))
    click.echo()


@dead_letters.command(
    "replay",
    examples=[
        "bin/dead-letters replay --destination shop --error 503 --dry-run",
        'bin/dead-letters replay --group 0123abcd --why "The shop is back (OPS-7)"',
    ],
    exit_codes=CHANGE_CODES,
)
@options.filters("Dead")
@options.error_filters()
@options.all_rows()
@options.audited()
@options.paced(RATE)
@options.as_json(paced_changes.MEMBERS)
def replay(who: str, why: str | None, dry_run: bool, rate: int, as_json: bool, **filters: Any) -> int:
    """Send dead letters again: the same events, with the same ids, in their order."""
    terms = Terms(who=who, why=why, dry_run=dry_run, rate=rate, as_json=as_json)
    with opened("Nothing was changed.") as (db, routes):
        operation = replaying("dead letter", routes.step_types)
        return paced_changes.apply(db, operation, Selection(among=Among.DEAD, **filters), terms)


@dead_letters.command(
    "discard",
    examples=[
        "bin/dead-letters discard --group 0123abcd --dry-run",
        'bin/dead-letters discard --group 0123abcd --why "The shop no longer exists (OPS-7)"',
    ],
    exit_codes=CHANGE_CODES,
)
@options.filters("Dead")
@options.error_filters()
@options.all_rows()
@options.audited()
@options.paced(None)
@options.as_json(paced_changes.MEMBERS)
def discard(who: str, why: str | None, dry_run: bool, rate: int | None, as_json: bool, **filters: Any) -> int:
    """Give dead letters up: they can't be replayed any more, and are pruned like delivered rows."""
    terms = Terms(who=who, why=why, dry_run=dry_run, rate=rate, as_json=as_json)
    with opened("Nothing was changed.") as (db, _):
        return paced_changes.apply(db, DISCARDING, Selection(among=Among.DEAD, **filters), terms)


DISCARDING = BulkOperation(
    count=lambda session, selection: replays.count(session, selection, ()),
    act=letters.discard,
    noun="dead letter",
    verb="Discarding",
    participle="discarded",
    outlook="They can't be replayed any more, and are pruned like delivered rows, after OUTBOX_RETENTION_DAYS.",
)


dead_letters.add_command(bury)


if __name__ == "__main__":
    command_line.run(dead_letters)
