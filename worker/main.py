"""The worker process: Dramatiq's own command line, tuned."""

import os
from functools import partial

import rich_click as click

from domain.runtime import shared_metrics, startup
from worker.commands.command_line import DONE, Command, run

#: Dramatiq's Redis consumer polls, and backs off up to this many milliseconds. Its default of 1,000
#: would be the latency of every lone event.
POLL_MILLISECONDS = "20"

#: SIGTERM is answered within 10 s: calls that have begun get 6 s. With Dramatiq's own second of polling, twice, that
#: leaves time to release the lanes.
SHUTDOWN_MILLISECONDS = "6000"

#: Dramatiq's parent hears no signal while it waits for its children to be ready, and they wait for the database.
FORK_MILLISECONDS = "3000"


def work(processes: int, threads: int) -> int:
    """Run worker processes until SIGTERM."""
    os.environ.setdefault("dramatiq_worker_timeout", POLL_MILLISECONDS)
    from dramatiq.cli import main as dramatiq_main
    from dramatiq.cli import make_argument_parser

    from domain.fulfilment import load_routes
    from domain.outbox.operations.routes_check import require_if_reachable
    from domain.runtime import tracing
    from domain.runtime.settings import Settings

    settings = Settings.load()
    routes = load_routes(settings)
    tracing.require()
    # Each process checks this again. Here, it is reported once.
    require_if_reachable(settings, routes)
    command = ["worker.actors:broker", "--processes", str(processes), "--threads", str(threads), "--skip-logging"]
    command += ["--worker-shutdown-timeout", SHUTDOWN_MILLISECONDS, "--worker-fork-timeout", FORK_MILLISECONDS]
    if settings.worker_metrics_port:
        command += ["--fork-function", "worker.telemetry.exposition:serve_workers"]
    with shared_metrics.share():
        status: int = dramatiq_main(make_argument_parser().parse_args(command))
    return status


@click.command(
    cls=Command,
    name="bin/worker",
    examples=["bin/worker --processes 2 --threads 4"],
    exit_codes={DONE: "stopped by SIGTERM"},
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
    """Deliver the outbox, expire holds and prune, whenever a wake-up comes, until SIGTERM."""
    return work(processes, threads)


if __name__ == "__main__":
    startup.run(partial(run, main))
