"""Isolation: a poisonous row, message or effect fails alone, and its neighbours are not stopped.

These are the only places of the workers that catch every exception.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import structlog

from domain.outbox import Failed, Outcome, Row, Unreachable
from domain.runtime.database import trouble

Result = TypeVar("Result")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Broken:
    """An effect raised an error, so its transaction was rolled back."""

    error: str


def isolate_row(step: Callable[[Row], Result], row: Row) -> Result | Failed:
    """Do something with one row. If that raises, the row has failed."""
    try:
        return step(row)
    except Exception as error:
        log.exception("delivery.broke", row=row.id)
        return Failed(_message(error))


def isolate_send(send: Callable[[Sequence[Row]], Sequence[Outcome]], rows: Sequence[Row]) -> Sequence[Outcome]:
    """Send rows together. If that raises, nobody can say which row is the cause, if any: it counts as an outage."""
    try:
        return send(rows)
    except Exception as error:
        log.exception("batch.broke", rows=len(rows))
        return [Unreachable(_message(error))] * len(rows)


def isolate_effects(commit: Callable[[], Result]) -> Result | Broken:
    """Commit a transaction with effects. An error of the database that passes by itself is raised all the same."""
    try:
        return commit()
    except Exception as error:
        if trouble(error):
            raise
        log.exception("outbox.effect_broke")
        return Broken(_message(error))


def _message(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
