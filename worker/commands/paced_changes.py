"""Changing many rows: batch by batch, no faster than asked, each batch written down with what it changed."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from sqlalchemy.orm import Session, sessionmaker

from domain.outbox.operations.bulk_change import Batch, Changed
from worker.commands.runner import stoppable

#: A second's worth of rows goes in so many batches, so that a low rate is an even one.
BATCHES_A_SECOND = 4


Act = Callable[[Session, Batch], Changed]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How far it came: rows that were changed, and whether all were that there are."""

    done: int
    is_complete: bool


def run(db: sessionmaker[Session], act: Act, first: Batch, *, doing: str, total: int, rate: int | None) -> Run:
    """Change the rows of a selection `as_of_now`, until all are or the process is told to stop."""
    stopping, begun = threading.Event(), time.monotonic()
    limit = first.limit if rate is None else max(1, min(first.limit, rate // BATCHES_A_SECOND))
    done, batch = 0, replace(first, limit=limit)
    with stoppable(stopping), _progress(doing, total) as show:
        while not stopping.is_set():
            with db.begin() as session:
                changed = act(session, batch)
            done += changed.rows
            show(done)
            if changed.following is None:
                return Run(done=done, is_complete=True)
            batch = changed.following
            if rate is not None:
                stopping.wait(begun + done / rate - time.monotonic())
    return Run(done=done, is_complete=False)


@contextmanager
def _progress(doing: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar, on a terminal only."""
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(doing, total=total)
        yield lambda done: progress.update(task, completed=done)
