"""`bin/process-outbox`: deliver what is due, once. It needs PostgreSQL only, and may run beside workers."""

import rich_click as click

from domain.runtime.settings import Settings
from worker.app import open_app
from worker.commands import command_line, options
from worker.commands.command_line import DONE, TROUBLE, Command
from worker.commands.output import print_json, progress
from worker.commands.runner import reporting, stoppable
from worker.relay.tally import Tally

MEMBERS = (
    "delivered (or answered, by a step), waiting (rows that wait for another attempt), dead and fenced (rows that are"
    " sent again, because their lease was lost). A destination log: writes its events to standard output as"
    " well; the object is the last line."
)


@click.command(
    "bin/process-outbox",
    cls=Command,
    examples=["bin/process-outbox", "bin/process-outbox --destination shop --limit 1000"],
    exit_codes={
        0: "all rows that were tried are delivered",
        1: "some rows were tried and not delivered, or the database failed",
    },
)
@click.option("--destination", metavar="NAME", help="Deliver to this destination only (default all in the routes).")
@options.limit("rows")
@options.as_json(MEMBERS)
def process_outbox(destination: str | None, limit: int | None, as_json: bool) -> int:
    """Deliver what is due, once.

    It is for cron: it does the work of the workers, and may run beside them and beside itself. It ends when nothing is
    due.
    """
    with reporting("No event is lost: the next run delivers what this one did not."):
        tally = _deliver(destination, limit)
    if as_json:
        print_json(delivered=tally.processed, waiting=tally.waiting, dead=tally.dead, fenced=tally.fenced)
    else:
        click.echo(_describe(tally))
    return TROUBLE if tally.waiting or tally.dead or tally.fenced else DONE


def _deliver(destination: str | None, limit: int | None) -> Tally:
    app = open_app(Settings.load(), threads=1, only=destination)
    try:
        with stoppable(app.relay.stopping), progress("Delivering") as advance:
            return app.relay.run(
                limit=limit or float("inf"),
                progress=lambda so_far: advance(text=f"Delivering: {_describe(so_far)}"),
            )
    finally:
        app.close()


def _describe(tally: Tally) -> str:
    counts = f"{tally.processed:,} delivered, {tally.waiting:,} waiting, {tally.dead:,} dead"
    return f"{counts}, {tally.fenced:,} sent again because their lease was lost" if tally.fenced else counts


if __name__ == "__main__":
    command_line.run(process_outbox)
