"""An outage of each destination of the matrix, as it is for that kind of destination."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.environment import Environment
from tests.proofs.cluster.receiver import healthy
from tests.support.waiting import wait_until

#: Both of these are Linux's: paths are relative to the working directory, and two files change places.
AT_FDCWD, RENAME_EXCHANGE = -100, 2


@contextmanager
def outage_of(environment: Environment, destination: str) -> Iterator[None]:
    """The partner and the confirmation service answer 503, a broker's port is shut, and the log can't be opened."""
    if destination == "journal":
        with _a_folder_in_place_of(environment.cluster.home / "journal.jsonl"):
            yield
    elif destination in environment.brokers:
        environment.brokers[destination].proxy.shut()
        yield
        environment.brokers[destination].proxy.open()
    else:
        environment.receiver.rule = lambda _: 503
        environment.cluster.partners.set_knobs(outage=True)
        yield
        environment.receiver.rule = healthy
        environment.cluster.partners.set_knobs()


@contextmanager
def _a_folder_in_place_of(path: Path) -> Iterator[None]:
    """No process finds the path missing at any moment, or it would make a new file there."""
    wait_until("there is a log", path.exists)
    folder = path.with_suffix(".folder")
    folder.mkdir()
    _exchange(path, folder)
    yield
    _exchange(path, folder)
    folder.rmdir()


def _exchange(one: Path, other: Path) -> None:
    """Have two files change places in one step."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(AT_FDCWD, bytes(one), AT_FDCWD, bytes(other), RENAME_EXCHANGE):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
