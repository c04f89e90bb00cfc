"""`bin/process-outbox`: deliver what is due, once. It needs PostgreSQL only, and may run beside workers."""

from collections.abc import Callable, Mapping, Sequence
from threading import Lock

import rich_click as click

from domain.outbox.operations import destinations
from domain.outbox.operations.destinations import DestinationStatus
from domain.runtime.logs import printable
from domain.runtime.settings import Settings
from worker import maintenance
from worker.app import open_app
from worker.commands import command_line, options
from worker.commands.command_line import DONE, TROUBLE, Command
from worker.commands.output import instant, print_json, print_wrapped, progress
from worker.commands.runner import reporting, stoppable
from worker.relay.tally import Tally

#: The connections to PostgreSQL. Threads share them: each needs one only to claim and to settle.
CONNECTIONS = 8

MEMBERS = (
    "delivered (or answered, by a step), waiting (rows that wait for another attempt), dead, fenced (rows that are"
    " sent again, because their lease was lost) and held_back (destinations that are paused or down and have pending"
    " rows), a list of destination, condition, since, reason and next_probe_at. A destination log: writes its events to"
    " standard output as well; the object is the last line."
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
@options.limit("rows to each destination")
@options.as_json(MEMBERS)
def process_outbox(destination: str | None, limit: int | None, as_json: bool) -> int:
    """Deliver what is due, once.

    It is for cron: it does the work of the workers, and may run beside them and beside itself. It ends when nothing is
    due. All destinations are delivered to at the same time, and the limit is one for each. It also seals the audit.
    """
    with reporting("No event is lost: the next run delivers what this one did not."):
        tally, held_back = _deliver(destination, limit)
    if as_json:
        print_json(
            delivered=tally.processed,
            waiting=tally.still_waiting,
            dead=tally.dead,
            fenced=tally.fenced,
            held_back=[_members(one) for one in held_back],
        )
    else:
        click.echo(_describe(tally))
        for one in held_back:
            print_wrapped(_describe_held_back(one))
    return TROUBLE if tally.still_waiting or tally.dead or tally.fenced else DONE


def _deliver(destination: str | None, limit: int | None) -> tuple[Tally, Sequence[DestinationStatus]]:
    app = open_app(Settings.load(), threads=CONNECTIONS, only=destination)
    try:
        with stoppable(app.relay.stopping), progress("Delivering") as advance:
            so_far = SoFar(lambda tally: advance(text=f"Delivering: {_describe(tally)}"))
            tally = app.relay.run_side_by_side(limit=limit or float("inf"), progress=so_far.add)
            maintenance.seal_audit(app.db, app.relay.stopping)
        with app.db.begin() as session:
            return tally, destinations.held_back(session, app.relay.routes.keys())
    finally:
        app.close()


class SoFar:
    """What was delivered so far, by all threads."""

    def __init__(self, show: Callable[[Tally], None]) -> None:
        self._show = show
        self._lock = Lock()
        self._total = Tally()

    def add(self, drained: Tally) -> None:
        with self._lock:
            self._total += drained
            self._show(self._total)


def _describe(tally: Tally) -> str:
    counts = f"{tally.processed:,} delivered, {tally.still_waiting:,} waiting, {tally.dead:,} dead"
    return f"{counts}, {tally.fenced:,} sent again because their lease was lost" if tally.fenced else counts


def _members(one: DestinationStatus) -> Mapping[str, object]:
    return {
        "destination": one.name,
        "condition": one.condition,
        "since": one.paused_at if one.paused else one.opened_at,
        "reason": one.reason,
        "next_probe_at": None if one.paused else one.next_probe_at,
    }


def _describe_held_back(one: DestinationStatus) -> str:
    reason = f" ({printable(one.reason)})" if one.reason else ""
    if one.paused:
        return (
            f"{one.name} is paused{reason}: its events wait, and none is sent until somebody resumes it.\n"
            f"Resume it: bin/destinations resume {one.name} --why TEXT"
        )
    return (
        f"{one.name} has been down since {instant(one.opened_at)}{reason}: its events wait, which costs no attempts."
        f" The first run from {instant(one.next_probe_at)} on tries it with one of them.\n"
        f"Let the next run try it: bin/destinations probe {one.name} --why TEXT"
    )


if __name__ == "__main__":
    command_line.run(process_outbox)
