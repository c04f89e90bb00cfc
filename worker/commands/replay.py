"""`bin/replay`: send delivered events again."""

from collections.abc import Collection
from typing import Any

import rich_click as click

from domain.outbox.operations import replay as replays
from domain.outbox.operations.selection import Among, Selection
from worker.commands import command_line, options, paced_changes
from worker.commands.command_line import Command
from worker.commands.paced_changes import BulkOperation, Terms
from worker.commands.runner import opened

#: Rows per second. A consumer that is up can take as many besides its present events.
RATE = 500

EXIT_CODES = {
    0: "all matching rows were replayed, or counted by --dry-run",
    1: "no row matches, the run was stopped before its end, or the database failed",
}


@click.command(
    "bin/replay",
    cls=Command,
    examples=[
        "bin/replay --destination shop --since 2030-01-31T12:00:00Z --dry-run",
        'bin/replay --destination shop --since 2030-01-31T12:00:00Z --why "The shop lost data (OPS-7)"',
    ],
    exit_codes=EXIT_CODES,
)
@options.filters("Delivered")
@options.all_rows()
@options.audited()
@options.paced(RATE)
@options.as_json(paced_changes.MEMBERS)
def replay(who: str, why: str | None, dry_run: bool, rate: int, as_json: bool, **filters: Any) -> int:
    """Send delivered events again.

    They are the same events with the same ids, in their order, with the header `replayed`. A step, whose answer has
    changed a reservation, is skipped.
    """
    terms = Terms(who=who, why=why, dry_run=dry_run, rate=rate, as_json=as_json)
    with opened("Nothing was changed.") as (db, routes):
        operation = replaying("delivered row", routes.step_types)
        return paced_changes.apply(db, operation, Selection(among=Among.DELIVERED, **filters), terms)


def replaying(noun: str, step_types: Collection[str]) -> BulkOperation:
    """Return the operation that makes rows pending again."""
    return BulkOperation(
        count=lambda session, selection: replays.count(session, selection, step_types),
        act=lambda session, batch: replays.replay(session, batch, step_types),
        noun=noun,
        verb="Replaying",
        participle="replayed",
        outlook=(
            "Workers send them again, in their order, with the same event ids and the header replayed.\nSee how many"
            " are pending: bin/destinations list"
        ),
    )


if __name__ == "__main__":
    command_line.run(replay)
