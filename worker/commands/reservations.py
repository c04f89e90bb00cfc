"""`bin/expire-reservations`: expire overdue holds, once. It needs PostgreSQL only, and may run beside workers."""

import threading

import rich_click as click

from worker import maintenance
from worker.commands import command_line, options
from worker.commands.command_line import DONE, Command
from worker.commands.output import print_json, progress, rows
from worker.commands.runner import opened, stoppable


@click.command(
    "bin/expire-reservations",
    cls=Command,
    examples=["bin/expire-reservations", "bin/expire-reservations --limit 1000 --json"],
)
@options.limit("holds")
@options.as_json("expired (the number of holds).")
def expire_reservations(limit: int | None, as_json: bool) -> int:
    """Expire overdue holds and make their stock available again, once.

    It is for cron: it does the work of the workers, and may run beside them and beside itself.
    """
    stopping = threading.Event()
    with opened("Holds that were not expired yet are expired by the next run.", records=True) as (db, routes):
        with stoppable(stopping), progress("Expiring holds") as advance:
            expired = maintenance.expire(
                db,
                stopping,
                routes,
                limit=limit or float("inf"),
                progress=lambda so_far: advance(text=f"Expiring holds: {so_far:,}"),
            )
    if as_json:
        print_json(expired=expired)
    else:
        click.echo(f"{rows(expired, 'hold')} expired")
    return DONE


if __name__ == "__main__":
    command_line.run(expire_reservations)
