"""The folder in which the metrics of several processes add up.

This module does not import `prometheus_client`: that library decides when it is imported whether processes
share their metrics, so the folder has to be named before.
"""

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

#: The variable that names the folder. `prometheus_client` reads it when it is imported.
VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


@contextmanager
def share() -> Iterator[None]:
    """Have the processes that start meanwhile add their metrics up, from 0."""
    with TemporaryDirectory(prefix="holdfast-metrics-", ignore_cleanup_errors=True) as folder:
        os.environ[VARIABLE] = folder
        try:
            yield
        finally:
            del os.environ[VARIABLE]


def ended_processes(folder: str) -> Collection[int]:
    """Return the processes that have written metrics there and no longer run."""
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
