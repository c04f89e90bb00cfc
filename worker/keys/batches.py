"""Changing many rows: batch by batch, no faster than asked, each batch written down with what it changed."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from sqlalchemy.orm import Session, sessionmaker

from domain.outbox import audit
from domain.outbox.audit import Deed
from domain.outbox.replay import BATCH, Batch
from domain.outbox.selection import Selection
from worker.keys.turning import stoppable

#: A second's worth of rows goes in so many batches, so that a low rate is an even one.
BATCHES_A_SECOND = 4


class Act(Protocol):
    def __call__(self, session: Session, selection: Selection, *, after: int, limit: int) -> Batch: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How far it came: rows that were changed, and whether all were that there are."""

    done: int
    is_complete: bool


def run(db: sessionmaker[Session], act: Act, selection: Selection, deed: Deed, *, total: int, rate: int | None) -> Run:
    """Change the rows of a selection `as_of_now`, until all are or the process is told to stop."""
    stopping, begun = threading.Event(), time.monotonic()
    limit = BATCH if rate is None else max(1, min(BATCH, rate // BATCHES_A_SECOND))
    done, number, after = 0, None, 0
    with stoppable(stopping), _progress(deed.action, total) as show:
        while not stopping.is_set():
            with db.begin() as session:
                batch = act(session, selection, after=after, limit=limit)
                if batch.done:
                    number = audit.note(session, deed, rows=batch.done, number=number)
            done += batch.done
            show(done)
            if batch.after is None:
                return Run(done=done, is_complete=True)
            after = batch.after
            if rate is not None:
                stopping.wait(begun + done / rate - time.monotonic())
    return Run(done=done, is_complete=False)


@contextmanager
def _progress(doing: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar, on a terminal only."""
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(doing.capitalize(), total=total)
        yield lambda done: progress.update(task, completed=done)
