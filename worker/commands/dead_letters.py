"""Promises that were given up: look at them, send them again, or give them up for good."""

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from uuid import UUID

from sqlalchemy.orm import Session, sessionmaker

from domain.outbox.operations import dead_letters
from domain.outbox.operations import replay as replaying
from domain.outbox.operations.bulk_change import Batch
from domain.outbox.operations.dead_letters import Group, Letter
from domain.outbox.operations.selection import Among
from worker.commands import bulk_changes, options
from worker.commands.output import instant, plain, rows, wrapped
from worker.commands.replay import RATE, again, told
from worker.commands.runner import DONE, TROUBLE, turned

#: What a long error is cut to in the list; `show` has all of it.
ERROR = 300


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    asked = parser.parse_args(arguments)
    options.insist_on_why(parser, asked)
    works = {"list": list_groups, "show": show, "replay": replay, "discard": discard}
    return turned(lambda db, _: works[asked.work](db, asked))


def list_groups(db: sessionmaker[Session], asked: argparse.Namespace) -> int:
    """List dead letters in groups of one destination, one type and like errors."""
    asked.everything = True
    with db.begin() as session:
        groups = dead_letters.grouped(session, options.selection(asked, Among.DEAD))
    if not groups:
        print("No dead letters.")
        return DONE
    for group in groups:
        print(_told(group))
    more = " or more" if len(groups) == dead_letters.GROUPS else ""
    letters = rows(sum(group.rows for group in groups), "dead letter")
    print(f"{letters} in {rows(len(groups), 'group')}{more}. # stands for what varies.\n")
    name = groups[0].name
    print(f"Look at one:        bin/dead-letters show {groups[0].example}")
    print(f"Send a group again: bin/dead-letters replay --group {name} --why TEXT   (--dry-run counts)")
    print(f"Give a group up:    bin/dead-letters discard --group {name} --why TEXT  (--dry-run counts)")
    return DONE


def _told(group: Group) -> str:
    error = plain(group.error)[:ERROR] or "no error was noted"
    return "\n".join(
        [
            f"{group.name}  {rows(group.rows)}  {group.type} to {group.destination}",
            wrapped(error, " " * 10),
            f"          {instant(group.oldest)} to {instant(group.newest)}, event {group.example}\n",
        ]
    )


def show(db: sessionmaker[Session], asked: argparse.Namespace) -> int:
    """Show the dead letters of an event, one for each destination."""
    with db.begin() as session:
        letters = dead_letters.show(session, asked.which)
    if not letters:
        print(f"There is no dead letter {asked.which}. If it is an event's id, bin/why says where it stands.")
        return TROUBLE
    for letter in letters:
        print("\n".join(_shown(letter, payload=asked.payload)) + "\n")
    return DONE


def _shown(letter: Letter, *, payload: bool) -> Sequence[str]:
    facts = {
        "event": f"{letter.event_id}  {letter.type}",
        "reservation": str(letter.aggregate_id),
        "destination": letter.destination,
        "row": f"{letter.id}, of group {letter.group}",
        "recorded": instant(letter.created_at),
        "dead": f"{instant(letter.dead_at)}, after {rows(letter.attempts, 'attempt')}",
        "replayed": letter.replayed_at and instant(letter.replayed_at),
        "discarded": letter.discarded_at and f"{instant(letter.discarded_at)}: it can't be replayed any more",
        "headers": plain(letter.headers),
        "error": plain(letter.last_error) or "none was noted",
    }
    lines = [wrapped(f"{name:13}{fact}") for name, fact in facts.items() if fact]
    return [*lines, json.dumps(json.loads(letter.payload), indent=2)] if payload else lines


def replay(db: sessionmaker[Session], asked: argparse.Namespace) -> int:
    """Send dead letters again: the same events, under the same ids, in their order."""
    return again(db, asked, options.selection(asked, Among.DEAD))


def discard(db: sessionmaker[Session], asked: argparse.Namespace) -> int:
    """Give dead letters up for good."""
    with db.begin() as session:
        selection = options.selection(asked, Among.DEAD).as_of_now(session)
        there = replaying.count(session, selection).rows
    if not there:
        print("No dead letter fits. Nothing was changed.", file=sys.stderr)
        return TROUBLE
    if asked.dry_run:
        print(f"{rows(there, 'dead letter')} would be discarded. Nothing was changed; --why does it.")
        return DONE
    first = Batch(selection=selection, entry=options.entry(asked))
    run = bulk_changes.run(db, dead_letters.discard, first, doing="Discard", total=there, rate=asked.rate)
    return told(run, there, "dead letter", "discarded", selection)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bin/dead-letters", description=__doc__)
    works = parser.add_subparsers(dest="work", required=True)
    listing = works.add_parser("list", description=list_groups.__doc__)
    showing = works.add_parser("show", description=show.__doc__)
    showing.add_argument("which", metavar="EVENT_ID|ROW", type=_which, help="the id of the event, or a row's number")
    showing.add_argument("--payload", action="store_true", help="its payload as well, which may be personal")
    replaying = works.add_parser(
        "replay", description=f"{replay.__doc__} {RATE} rows a second, unless --rate is given."
    )
    discarding = works.add_parser("discard", description=discard.__doc__)
    for one in (listing, replaying, discarding):
        options.add_selection(one, "dead")
        options.add_error(one)
    for one in (replaying, discarding):
        options.add_audit_entry(one)
    return parser


def _which(text: str) -> int | UUID:
    with suppress(ValueError):
        return UUID(text)
    with suppress(ValueError):
        if 0 < int(text) < 2**63:
            return int(text)
    raise argparse.ArgumentTypeError("it must be the id of an event, or the number of a row")


if __name__ == "__main__":
    sys.exit(main())
