"""Logs: one operation, one event, as JSON lines or, on a terminal, for people."""

import logging
import sys
from contextlib import suppress
from typing import Any, TextIO, cast

import structlog
from structlog.tracebacks import ExceptionDictTransformer

from domain.runtime.redaction import RedactingFormatter, redacting


class Lossy:
    """A stream that loses what can't be written: its reader is gone, or its disk is full."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


def lose_what_can_not_be_written() -> None:
    """Let this process and those that it forks work on when nobody takes their logs any more.

    A log that can't be written is no reason to stop delivering, nor to stop watching those who deliver.
    """
    sys.stderr = cast(TextIO, Lossy(sys.stderr))


def printable(text: str | None) -> str:
    """Return foreign text as one line, without the characters that control a terminal."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text or "").split())


def configure(level: str) -> None:
    """Send logs to standard error, so that standard output is left to what a process is for."""
    # Without local variables: they hold requests and rows, which are personal data, and a lot of it.
    tracebacks = structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False))
    render = structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            tracebacks if not sys.stderr.isatty() else structlog.processors.format_exc_info,
            redacting(render),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(RedactingFormatter(logging.BASIC_FORMAT))
    # It warns of what it raises as well, in lines that are no JSON.
    logging.getLogger("psycopg").setLevel(logging.ERROR)
