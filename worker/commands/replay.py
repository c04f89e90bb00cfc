"""Send again what was delivered: the same events with the same ids, marked as replayed, in their order."""

import argparse
import sys
from collections.abc import Sequence

from sqlalchemy.orm import Session, sessionmaker

from domain.outbox.operations import replay
from domain.outbox.operations.bulk_change import Batch
from domain.outbox.operations.selection import Among, Selection
from worker.commands import bulk_changes, options
from worker.commands.output import exact, rows, wrapped
from worker.commands.runner import DONE, TROUBLE, turned

#: A consumer that is up takes as much on top of what happens now.
RATE = 500

LEFT_OUT = (
    "{} left out: their answers have changed reservations, and they stand. A step is replayed only while it is dead."
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bin/replay", description=f"{__doc__} {RATE} rows a second, or --rate.")
    options.add_selection(parser, "delivered")
    options.add_audit_entry(parser)
    asked = parser.parse_args(arguments)
    options.insist_on_why(parser, asked)
    return turned(lambda db, _: again(db, asked, options.selection(asked, Among.DELIVERED)))


def again(db: sessionmaker[Session], asked: argparse.Namespace, selection: Selection) -> int:
    """Replay a selection and say what came of it."""
    with db.begin() as session:
        selection = selection.as_of_now(session)
        there = replay.count(session, selection)
    if there.skipped_steps:
        print(wrapped(LEFT_OUT.format(rows(there.skipped_steps, "answered step"))))
    what = "delivered row" if selection.among is Among.DELIVERED else "dead letter"
    if not there.rows:
        print(wrapped(f"No {what} fits. Nothing was changed."), file=sys.stderr)
        return TROUBLE
    if asked.dry_run:
        print(wrapped(f"{rows(there.rows, what)} would be replayed. Nothing was changed; --why does it."))
        return DONE
    first = Batch(selection=selection, entry=options.entry(asked))
    run = bulk_changes.run(db, replay.send_again, first, doing="Replay", total=there.rows, rate=asked.rate or RATE)
    return told(run, there.rows, what, "replayed", selection)


def told(run: bulk_changes.Run, total: int, what: str, done: str, selection: Selection) -> int:
    """Say how far a run came and what happens next. Return how the key ends."""
    if run.is_complete:
        print(wrapped(f"{rows(run.done, what)} {done}. {NEXT[done]}"))
        return DONE
    assert selection.until is not None
    print(
        wrapped(
            f"Stopped: {run.done:,} of {rows(total, what)} {done}. {NEXT[done]}\nFor the rest, run it again with"
            f" --until {exact(selection.until)}: so none goes twice."
        )
    )
    return TROUBLE


NEXT = {
    "replayed": (
        "Workers send them again as soon as nothing is in the way, in their order, under the same event ids and with"
        " the header replayed.\nSee them leave: bin/destinations list"
    ),
    "discarded": "They can't be replayed any more, and are deleted with what was delivered, after its retention.",
}


if __name__ == "__main__":
    sys.exit(main())
