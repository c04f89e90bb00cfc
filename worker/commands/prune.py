"""`bin/prune`: delete what has been kept long enough, once. It needs PostgreSQL only, and may run beside workers."""

import threading
from collections.abc import Mapping

import rich_click as click

from domain.runtime.settings import Settings
from worker import maintenance
from worker.commands import command_line, options
from worker.commands.command_line import DONE, Command
from worker.commands.output import print_json, progress, rows
from worker.commands.runner import opened, stoppable
from worker.maintenance import Pruning, Retention, plural

MEMBERS = (
    "deleted (the numbers of idempotency_keys, delivered_rows, discarded_rows and feed_events) and complete (whether"
    " nothing that is old enough remained)."
)


@click.command("bin/prune", cls=Command, examples=["bin/prune", "bin/prune --seconds 240 --json"])
@click.option(
    "--seconds",
    metavar="N",
    type=options.POSITIVE,
    default=None,
    help="Stop after this time; the next run continues (default unlimited).",
)
@options.as_json(MEMBERS)
def prune(seconds: int | None, as_json: bool) -> int:
    """Delete what has been kept long enough, once.

    That is idempotency keys that are older than a day, outbox rows that were delivered or discarded more than
    OUTBOX_RETENTION_DAYS ago, and events that have been in the feed for more than FEED_RETENTION_DAYS. It is for cron:
    it does the work of the workers, and may run beside them and beside itself. After each batch it rests for a while,
    so that it does not slow down anybody else. It also seals the audit.
    """
    with opened("What was not deleted yet is deleted by the next run.") as (db, _):
        stopping = threading.Event()
        with stoppable(stopping), progress("Pruning") as advance:
            maintenance.reset_low_watermarks(db)
            maintenance.seal_audit(db, stopping)
            run = maintenance.prune(
                db,
                stopping,
                Retention.of(Settings.load()),
                seconds=seconds or float("inf"),
                progress=lambda deleted: advance(text=f"Pruning: {_describe(deleted)}"),
            )
    if as_json:
        print_json(deleted={plural(name): count for name, count in run.deleted.items()}, complete=run.complete)
    else:
        click.echo(_summary(run))
    return DONE


def _summary(run: Pruning) -> str:
    return f"{_describe(run.deleted)} deleted" + ("" if run.complete else "; the next run deletes the rest")


def _describe(deleted: Mapping[str, int]) -> str:
    *others, last = (rows(count, name) for name, count in deleted.items())
    return f"{', '.join(others)} and {last}"


if __name__ == "__main__":
    command_line.run(prune)
