"""The worker process: Dramatiq's own command line, tuned."""

import argparse
import os
import sys


def main() -> int:
    """Run worker processes until SIGTERM."""
    parser = argparse.ArgumentParser(prog="bin/worker", description="Relay the outbox and tidy up, when rung for.")
    parser.add_argument("--processes", type=int, default=2, help="worker processes (2)")
    parser.add_argument("--threads", type=int, default=4, help="threads in each process (4)")
    arguments = parser.parse_args()

    # Dramatiq's Redis consumer polls, backing off up to this many milliseconds: its
    # default of 1,000 would be the latency of every lone event.
    os.environ.setdefault("dramatiq_worker_timeout", "20")
    from dramatiq.cli import main as dramatiq_main
    from dramatiq.cli import make_argument_parser

    from domain.runtime import telemetry
    from domain.runtime.settings import Settings

    command = ["worker.actors:broker", "--processes", str(arguments.processes), "--threads", str(arguments.threads)]
    # SIGTERM is answered within 10 s: calls that have begun get 6 s to be answered, which with
    # Dramatiq's own second of looking up, twice, leaves time to give the lanes back.
    command += ["--worker-shutdown-timeout", "6000", "--skip-logging"]
    # Dramatiq's parent hears no signal while it waits for its children to be ready, and they
    # wait for the database.
    command += ["--worker-fork-timeout", "3000"]
    if Settings.load().worker_metrics_port:
        command += ["--fork-function", "worker.telemetry.exposition:show_workers"]
    with telemetry.sharing_metrics():
        status: int = dramatiq_main(make_argument_parser().parse_args(command))
    return status


if __name__ == "__main__":
    sys.exit(main())
