"""How the destinations fare, and what can be done about one: pause, resume, probe."""

import argparse
import sys
from collections import Counter
from collections.abc import Collection, Sequence

from sqlalchemy.orm import Session, sessionmaker

from domain.outbox.operations import destinations
from domain.outbox.operations.destinations import State
from domain.outbox.operations.status import Standing, look
from domain.outbox.routes import Routes
from worker.commands import options
from worker.commands.output import instant, plain, rows, table, wrapped
from worker.commands.runner import DONE, turned

HEAD = "NAME", "STATE", "PENDING", "WAITING", "DEAD", "OLDEST PENDING", "LANES IN HAND"

CHANGES = {"pause": destinations.pause, "resume": destinations.resume, "probe": destinations.probe}

#: What a change was, and what it would have been where there was nothing to change.
DID = {
    "pause": (
        "{0} is paused: nothing more is sent to it, and what is recorded for it waits in order. A batch that a worker"
        " has in hand still ends.\nLet it go on: bin/destinations resume {0} --why TEXT",
        "{0} is paused already. Nothing was changed.",
    ),
    "resume": (
        "{0} is resumed: workers send to it again within a second or two, in order for each reservation. If it is down"
        " as well, only after its next probe: bin/destinations list",
        "{0} is not paused. Nothing was changed.",
    ),
    "probe": (
        "{0} is tried at once, with one row: if it is up, everything leaves; if it is not, its breaker stays open.\n"
        "See which: bin/destinations list",
        "{0} is not probed: it is paused (bin/destinations resume {0} --why TEXT), or not known to be down. Nothing was"
        " changed.",
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    asked = parser.parse_args(arguments)
    options.insist_on_why(parser, asked)
    return turned(lambda db, routes: show(db, routes) if asked.work == "list" else change(db, asked))


def show(db: sessionmaker[Session], routes: Routes) -> int:
    """List all destinations: those of the routes, and those that only old rows know."""
    routed = [route.name for route in routes.destinations]
    with db.begin() as session:
        standings = look(session)
    first, *lines = table(HEAD, [_cells(one) for one in standings])
    print(first)
    for one, line in zip(standings, lines, strict=True):
        print("\n".join([line, *(wrapped(remark, "  ") for remark in _remarks(one, routed))]))
    fresh = sorted({*routed} - {one.name for one in standings})
    if fresh:
        print(wrapped(f"In the routes, and not served yet by any worker: {', '.join(fresh)}."))
    return DONE


def _cells(one: Standing) -> Sequence[str]:
    counts = {"pending": one.pending, "waiting": one.waiting, "dead": one.dead}
    numbers = [f"{number:,}" + "+" * (name in one.lower_bounds) for name, number in counts.items()]
    return one.name, one.state, *numbers, instant(one.oldest_pending_at), f"{len(one.holders):,}"


def _remarks(one: Standing, routed: Collection[str]) -> Sequence[str]:
    said = f": {plain(one.reason)}" if one.reason else ""
    remarks = []
    if one.state is State.PAUSED:
        since = f" since {instant(one.paused_at)}" if one.paused_at else ""
        remarks.append(f"paused{since}{said}\nbin/destinations resume {one.name} --why TEXT")
    elif one.state is State.DOWN:
        remarks.append(
            f"down since {instant(one.opened_at)}, next probe at {instant(one.next_probe_at)}{said}\n"
            f"bin/destinations probe {one.name} --why TEXT"
        )
    if one.name not in routed and one.pending:
        number = "at least " * ("pending" in one.lower_bounds) + rows(one.pending)
        remarks.append(
            f"not in the routes: nobody delivers {number}. Put it back into the file that HOLDFAST_ROUTES names;"
            " bin/doctor says how to let go of them instead."
        )
    elif one.name not in routed:
        remarks.append("not in the routes, and nothing is pending for it")
    if one.dead:
        remarks.append(f"dead letters: bin/dead-letters list --destination {one.name}")
    if one.holders:
        held = Counter(holder.rsplit(":", 1)[0] for holder in one.holders)
        remarks.append("lanes in hand of " + ", ".join(f"{plain(who)} ({number})" for who, number in held.items()))
    return remarks


def change(db: sessionmaker[Session], asked: argparse.Namespace) -> int:
    """Pause, resume or probe one, and say what that means."""
    # Born valid, so that what can't be written down is not done either.
    entry = options.entry(asked)
    with db.begin() as session:
        has_changed = CHANGES[asked.work](session, asked.name, entry)
    did, did_not = DID[asked.work]
    print(wrapped((did if has_changed else did_not).format(asked.name)))
    return DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bin/destinations", description=__doc__)
    works = parser.add_subparsers(dest="work", required=True)
    works.add_parser("list", description=show.__doc__)
    for work, verb in CHANGES.items():
        one = works.add_parser(work, description=verb.__doc__)
        one.add_argument("name", metavar="NAME", help="the destination")
        options.add_audit_entry(one, counts=False)
    return parser


if __name__ == "__main__":
    sys.exit(main())
