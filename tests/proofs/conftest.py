"""What every proof is given: dice that can be thrown the same way again."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from deploy.embedded import PostgreSQL
from tests.proofs.cluster import House, a_house

#: Any number would do; PROOFS_SEED=n tries another.
DEFAULT_SEED = "20251120"

Open = Callable[..., House]


@pytest.fixture(autouse=True)
def seed() -> int:
    """The seed of everything in a proof that is left to chance, but for the timing of its processes."""
    chosen = int(os.environ.get("PROOFS_SEED", DEFAULT_SEED))
    print(f"PROOFS_SEED={chosen}")
    return chosen


@pytest.fixture
def open_house(postgresql: PostgreSQL) -> Iterator[Open]:
    """Open houses, for the options see `a_house`. All that runs in them ends with the proof."""
    with ExitStack() as houses:

        def opened(**options: Any) -> House:
            return houses.enter_context(a_house(options.pop("on", postgresql), **options))

        yield opened


@contextmanager
def a_postgresql() -> Iterator[PostgreSQL]:
    """A server that may be crashed, as nobody else uses it."""
    # Not in a folder of pytest's: each session that starts makes those private again, and
    # PostgreSQL, whose user is another, finds its own files no more.
    home = Path(tempfile.mkdtemp(prefix="proof-"))
    server = PostgreSQL(home)
    try:
        yield server
    finally:
        with suppress(subprocess.CalledProcessError):  # a proof that failed may have left it stopped
            server.stop("immediate")
        shutil.rmtree(home, ignore_errors=True)
