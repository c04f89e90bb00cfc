"""The keys for cron: the same work as the workers', once, with PostgreSQL alone."""

import argparse
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.status import Status
from sqlalchemy.exc import SQLAlchemyError

from domain.outbox import routes_file
from domain.runtime import database, telemetry
from domain.runtime.settings import Settings
from worker import maintenance
from worker.app import open_app
from worker.commands.options import positive
from worker.commands.runner import failed, stoppable
from worker.relay.relay import Tally


def main(arguments: Sequence[str] | None = None) -> int:
    """Do one of the works and return 0 for done, 1 for trouble."""
    asked = _parser().parse_args(arguments)
    settings = Settings.load()
    telemetry.configure(settings.log_level)
    try:
        return process_outbox(settings, asked) if asked.work == "process-outbox" else expire(settings, asked)
    except SQLAlchemyError as error:
        return failed(error, "Nothing is lost; what is not done yet is done by the next run.")


def process_outbox(settings: Settings, asked: argparse.Namespace) -> int:
    """Deliver what is due."""
    app = open_app(settings, threads=1, only=asked.destination)
    try:
        with stoppable(app.drain.stopping), _progress("Delivering") as status:
            tally = app.drain.run(limit=asked.limit, progress=lambda so_far: status.update(_told(so_far)))
    finally:
        app.close()
    print(_told(tally))
    return 1 if tally.waiting or tally.dead or tally.fenced else 0


def _told(tally: Tally) -> str:
    told = f"{tally.delivered} delivered, {tally.waiting} waiting for another try, {tally.dead} dead"
    return f"{told}, {tally.fenced} to be delivered again" if tally.fenced else told


def expire(settings: Settings, asked: argparse.Namespace) -> int:
    """Expire overdue holds and give their stock back."""
    db = database.sessions(database.connect(settings, connections=1), routes=routes_file.load(settings))
    stopping = threading.Event()
    with stoppable(stopping), _progress("Expiring") as status:
        expired = maintenance.expire(
            db, stopping, limit=asked.limit, progress=lambda so_far: status.update(f"{so_far} holds expired")
        )
    print(f"{expired} holds expired")
    return 0


@contextmanager
def _progress(doing: str) -> Iterator[Status]:
    """Show what is going on, on a terminal only."""
    with Console(stderr=True).status(doing) as status:
        yield status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bin/…", description=__doc__)
    works = parser.add_subparsers(dest="work", required=True)
    outbox = works.add_parser("process-outbox", prog="bin/process-outbox", description=process_outbox.__doc__)
    outbox.add_argument("--limit", type=positive, default=float("inf"), help="try so many rows at the most")
    outbox.add_argument("--destination", help="only this one; all if it is not given")
    expiry = works.add_parser("expire-reservations", prog="bin/expire-reservations", description=expire.__doc__)
    expiry.add_argument("--limit", type=positive, default=float("inf"), help="expire so many holds at the most")
    return parser


if __name__ == "__main__":
    sys.exit(main())
