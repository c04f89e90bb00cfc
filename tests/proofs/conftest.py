"""What every proof is given: a cluster, and a seed, so that a proof can be repeated with the same random choices."""

import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from deploy.embedded import PostgreSQL
from tests.proofs.cluster.cluster import Cluster, a_cluster

#: Any number would do; PROOFS_SEED=n tries another.
DEFAULT_SEED = "20251120"

Open = Callable[..., Cluster]

#: The clusters that a proof has opened.
OPENED = pytest.StashKey[list[Cluster]]()

#: How much of the log of each process is shown if a proof fails, in characters from its end.
SHOWN_CHARACTERS = 4_000


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark every test of this folder as slow: it starts processes."""
    item.add_marker("slow")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the processes of a proof that fails have logged: it may have failed on a machine that is gone."""
    report = yield
    if report.when == "call" and report.failed:
        for cluster in item.stash.get(OPENED, []):
            for process in cluster.started:
                logged = process.log.read_text(errors="replace")[-SHOWN_CHARACTERS:]
                report.sections.append((f"Log of {process.log.name}", logged))
    return report


@pytest.fixture(autouse=True)
def seed() -> int:
    """The seed of every random choice in a proof. The timing of its processes can't be repeated."""
    chosen = int(os.environ.get("PROOFS_SEED", DEFAULT_SEED))
    print(f"PROOFS_SEED={chosen}")
    return chosen


@pytest.fixture
def open_cluster(postgresql: PostgreSQL, request: pytest.FixtureRequest) -> Iterator[Open]:
    """Open clusters, with the options of `a_cluster`. All their processes end with the proof."""
    with ExitStack() as clusters:
        opened_so_far = request.node.stash.setdefault(OPENED, [])

        def opened(**options: Any) -> Cluster:
            cluster = clusters.enter_context(a_cluster(options.pop("on", postgresql), **options))
            opened_so_far.append(cluster)
            return cluster

        yield opened


@contextmanager
def a_postgresql() -> Iterator[PostgreSQL]:
    """A server that a proof may crash, because nothing else uses it."""
    # It is in no folder of pytest's: each session that starts makes those private again, and then PostgreSQL,
    # which runs as another user, can no longer reach its files.
    home = Path(tempfile.mkdtemp(prefix="proof-"))
    server = PostgreSQL(home)
    try:
        yield server
    finally:
        server.stop("immediate")
        shutil.rmtree(home, ignore_errors=True)
