"""Changing many rows batch by batch, no faster than a rate. Each batch commits together with its audit entry."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import rich_click as click
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from domain.access.audit import AuditEntry
from domain.outbox.operations.bulk_change import Batch, Changed
from domain.outbox.operations.replay import ReplayCount
from domain.outbox.operations.selection import Selection
from worker.commands.command_line import DONE, TROUBLE
from worker.commands.output import exact, print_json, print_wrapped, progress, rows
from worker.commands.runner import describe, fail, stoppable

#: A second's worth of rows is changed in this many batches, so that a low rate is an even one.
BATCHES_PER_SECOND = 4

#: The members of the object that `--json` prints, for the help.
MEMBERS = (
    "matching (rows), changed (rows), skipped_steps, dry_run, complete (whether all matching rows were changed) and"
    " before (the time up to which rows were selected)."
)

SKIPPED = (
    "{} skipped: the answers have changed reservations and stay valid. A step can be replayed only while it is a dead"
    " letter."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkOperation:
    """What is done to the rows of a selection, and how it is described. `outlook` says what happens to them afterwards.

    `act` changes one batch of the rows that `count` counts.
    """

    count: Callable[[Session, Selection], ReplayCount]
    act: Callable[[Session, Batch], Changed]
    noun: str
    verb: str
    participle: str
    outlook: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How an operator wants an operation to be done: the options of `options.audited`, `paced` and `as_json`."""

    who: str
    why: str | None
    dry_run: bool
    rate: int | None
    as_json: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How many rows were changed, and whether these are all. An error of the database ends a run early."""

    rows: int = 0
    is_complete: bool = False
    error: SQLAlchemyError | None = None


def apply(db: sessionmaker[Session], operation: BulkOperation, selection: Selection, terms: Terms) -> int:
    """Change the rows of a selection, or count them in a dry run. Print a summary and return the exit code."""
    with progress("Counting rows"), db.begin() as session:
        selection = selection.as_of_now(session)
        found = operation.count(session, selection)
    run = Run() if terms.dry_run or not found.rows else _run(db, operation, selection, terms, found.rows)
    if terms.as_json:
        _print_json(run, found, selection, terms)
    elif found.skipped_steps:
        print_wrapped(SKIPPED.format(rows(found.skipped_steps, "answered step")))
    if not found.rows:
        fail(f"No matching {operation.noun}s. Nothing was changed.")
    if run.error:
        click.echo(describe(run.error, "The batch that failed was undone."), err=True)
    if not terms.as_json:
        print_wrapped(_summary(run, found.rows, operation, selection, terms))
    return DONE if terms.dry_run or run.is_complete else TROUBLE


def _run(db: sessionmaker[Session], operation: BulkOperation, selection: Selection, terms: Terms, total: int) -> Run:
    """Change batch after batch, until all rows are changed or the process is asked to stop."""
    first = Batch(selection=selection, entry=AuditEntry(who=terms.who, why=terms.why or ""))
    batch: Batch | None = first if terms.rate is None else replace(first, limit=_batch_size(first.limit, terms.rate))
    stopping, began, done = threading.Event(), time.monotonic(), 0
    with stoppable(stopping), progress(operation.verb, total) as advance:
        while batch is not None and not stopping.is_set():
            try:
                with db.begin() as session:
                    changed = operation.act(session, batch)
            except SQLAlchemyError as error:
                return Run(rows=done, error=error)
            done, batch = done + changed.rows, changed.following
            advance(done)
            if terms.rate is not None and batch is not None:
                stopping.wait(began + done / terms.rate - time.monotonic())
    return Run(rows=done, is_complete=batch is None)


def _batch_size(limit: int, rate: int) -> int:
    return max(1, min(limit, rate // BATCHES_PER_SECOND))


def _summary(run: Run, total: int, operation: BulkOperation, selection: Selection, terms: Terms) -> str:
    matching = rows(total, operation.noun)
    if terms.dry_run:
        return f"{matching} would be {operation.participle}. Dry run. Run again with --why TEXT to apply."
    if run.is_complete:
        return f"{rows(run.rows, operation.noun)} {operation.participle}. {operation.outlook}"
    assert selection.before is not None
    return (
        f"Stopped: {run.rows:,} of {matching} {operation.participle}. {operation.outlook}\nFor the rest, run it again"
        f" with --before {exact(selection.before)}, so that no row is {operation.participle} twice."
    )


def _print_json(run: Run, found: ReplayCount, selection: Selection, terms: Terms) -> None:
    print_json(
        matching=found.rows,
        changed=run.rows,
        skipped_steps=found.skipped_steps,
        dry_run=terms.dry_run,
        complete=run.is_complete,
        before=selection.before,
    )
