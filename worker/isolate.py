"""Isolation: a poisonous row, call or effect fails alone, and its neighbours are not stopped.

Beside these, workers catch every exception only in threads that nobody waits for, which would end unnoticed.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar

import structlog

from domain.outbox import Cause, Failed, Outcome, Row, Unreachable
from domain.runtime.database_errors import trouble
from domain.runtime.schema import lacks_schema

Result = TypeVar("Result")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Broken:
    """Something raised an error, of which this is the message."""

    error: str


def isolate_row(act: Callable[[Row], Result], row: Row) -> Result | Failed:
    """Format or deliver one row. If that raises, the row has failed."""
    try:
        return act(row)
    except Exception as error:
        log.exception("row.broke", row=row.id)
        return Failed(_message(error))


def isolate_send(send: Callable[[Sequence[Row]], Sequence[Outcome]], rows: Sequence[Row]) -> Sequence[Outcome]:
    """Send rows together. If that raises, nobody can say yet which row is the cause, if any."""
    try:
        return send(rows)
    except Exception as error:
        log.exception("batch.broke", rows=len(rows))
        return [Unreachable(_message(error), cause=Cause.ERROR)] * len(rows)


def isolate_call(call: Future[Result]) -> Result | Broken:
    """Wait for a call in another thread. If it raised an error, return that error's message."""
    if error := call.exception():
        return Broken(_message(error))
    return call.result()


def isolate_effects(commit: Callable[[], Result]) -> Result | Broken:
    """Commit a transaction with effects. If an effect raises, the transaction is rolled back.

    A transient database error is raised again, and so is the lack of a table: no event is the cause of these.
    """
    try:
        return commit()
    except Exception as error:
        if trouble(error) or lacks_schema(error):
            raise
        log.exception("outbox.effect_broke")
        return Broken(_message(error))


def _message(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
