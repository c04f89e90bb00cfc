"""The worker: as many processes as are wanted, and one that serves their metrics."""

from functools import partial

import rich_click as click

from domain.runtime import shared_metrics, startup
from worker.commands.command_line import DONE, TROUBLE, Command, run


def work(processes: int, threads: int) -> int:
    """Run worker processes until SIGTERM. Return the exit code."""
    from domain.fulfilment import load_routes
    from domain.outbox.operations.routes_check import require_if_reachable
    from domain.runtime import logs, tracing
    from domain.runtime.settings import Settings
    from worker import processes as supervised

    settings = Settings.load()
    logs.lose_what_can_not_be_written()
    logs.configure(settings.log_level)
    routes = load_routes(settings)
    tracing.require()
    # Each process checks this again. Here, it is reported once.
    require_if_reachable(settings, routes)
    with shared_metrics.share():
        return supervised.run(processes, threads, serve_metrics=settings.worker_metrics_port > 0)


@click.command(
    cls=Command,
    name="bin/worker",
    examples=["bin/worker --processes 2 --threads 4"],
    exit_codes={
        DONE: "stopped by SIGTERM, SIGHUP or Ctrl-C",
        TROUBLE: "all processes crashed repeatedly, or one did not end in time; the log says what to do",
    },
)
@click.option("--processes", type=click.IntRange(min=1), default=2, show_default=True, help="Worker processes.")
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    help="Threads of each destination in each process.",
)
def main(processes: int, threads: int) -> int:
    """Deliver the outbox, expire holds and prune, whenever a wake-up comes, until SIGTERM.

    A process that dies is started again.
    """
    return work(processes, threads)


if __name__ == "__main__":
    startup.run(partial(run, main))
