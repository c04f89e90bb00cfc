"""Logs: one operation, one event, as JSON lines or, on a terminal, for people. Where metrics add up."""

import logging
import os
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import structlog
from structlog.tracebacks import ExceptionDictTransformer


def configure(level: str) -> None:
    """Send logs to standard error, so that standard output is left to what a process is for."""
    # Local variables of a traceback would be requests and rows: personal data, and a lot of it.
    tracebacks = structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False))
    render = structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            tracebacks if not sys.stderr.isatty() else structlog.processors.format_exc_info,
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)


#: Names the folder that the metrics of several processes add up in. It has to be set before their library is imported.
SHARED_METRICS = "PROMETHEUS_MULTIPROC_DIR"


@contextmanager
def sharing_metrics() -> Iterator[None]:
    """Have the processes that start meanwhile add their metrics up, from 0."""
    with TemporaryDirectory(prefix="holdfast-metrics-", ignore_cleanup_errors=True) as folder:
        os.environ[SHARED_METRICS] = folder
        try:
            yield
        finally:
            del os.environ[SHARED_METRICS]


def ended_processes(folder: str) -> Collection[int]:
    """Return the processes that have written metrics there and run no more."""
    writers = {int(file.stem.rpartition("_")[2]) for file in Path(folder).glob("*.db")}
    return {process for process in writers if not _runs(process)}


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
