"""A complete Holdfast behind PgBouncer in transaction pooling, with far fewer connections than it has itself."""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack

import psycopg
import pytest
from sqlalchemy import text

from domain.outbox.table import LANES
from domain.runtime.settings import ROOT
from tests.proofs.checker import check, count, wait_until_drained
from tests.proofs.cluster.cluster import Cluster
from tests.proofs.conftest import Open
from tests.proofs.load import Load
from tests.support.pgbouncer import PgBouncer, a_pgbouncer
from tests.support.waiting import wait_until

#: The processes of a cluster have some 40 connections.
POOL_SIZE = 5

#: The rows that may be in flight when a worker can't settle: a batch of each lane.
IN_FLIGHT = LANES * 10

#: What Holdfast sets, and what the next client of a connection must not meet.
SETTINGS = ("TimeZone", "lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout", "enable_seqscan")


@pytest.fixture
def cluster(open_cluster: Open) -> Cluster:
    return open_cluster()


@pytest.fixture
def pgbouncer(cluster: Cluster) -> Iterator[PgBouncer]:
    """The way of all processes to PostgreSQL. Only the proof itself goes directly."""
    direct = cluster.environment["DATABASE_URL"]
    with a_pgbouncer(direct, pool_size=POOL_SIZE) as pooler:
        cluster.environment["DATABASE_URL"] = pooler.url
        yield pooler
        cluster.close()


def test_everything_is_reserved_confirmed_and_delivered_through_few_connections(
    cluster: Cluster, pgbouncer: PgBouncer, seed: int
) -> None:
    _start(cluster)
    (api,) = cluster.apis

    with Load([api.port], [cluster.an_item(100_000).id for _ in range(4)], seed, clients=16) as load:
        load.wait(answers=300)
    wait_until_drained(cluster)

    assert (load.unanswered, load.unexpected) == (0, [])
    check(cluster, answered=load.answered)
    assert len(pgbouncer.show("CLIENTS")) > 2 * POOL_SIZE >= 2 * len(pgbouncer.show("SERVERS")) > 0
    assert [process.name for process in cluster.started if "prepared statement" in process.log.read_text()] == []


def test_the_commands_work_and_leave_no_setting_behind(cluster: Cluster, pgbouncer: PgBouncer) -> None:
    before = _settings(cluster.db.kw["bind"].url.render_as_string(hide_password=False).replace("+holdfast", ""), 1)
    _start(cluster, workers=False)
    cluster.hold(cluster.an_item(10), 3)

    commands = [
        ["process-outbox"],
        ["expire-reservations"],
        ["prune"],
        ["doctor"],
        ["destinations", "list"],
        ["destinations", "pause", "partner", "--why=test"],
        ["dead-letters", "list"],
        ["replay", "--all", "--why=test"],
    ]
    runs = [_run(cluster, *command) for command in commands]
    after = _settings(pgbouncer.url, POOL_SIZE)

    assert [run.returncode for run in runs] == [0] * len(commands), [run.stderr for run in runs]
    assert runs[0].stdout.endswith("delivered, 0 waiting, 0 dead\n") and not runs[0].stdout.startswith("0 ")
    assert after == before * POOL_SIZE


def test_grpc_serves_behind_a_pooler(cluster: Cluster, pgbouncer: PgBouncer) -> None:
    grpc = cluster.grpc().ready()

    with grpc.client() as client:
        wanted = {"sku": "room-1", "quantity": 1, "start": "2030-01-31T12:00:00Z", "end": "2030-01-31T13:00:00Z"}
        answers = [client.post("/reservations", wanted, key="first") for _ in range(10)]

    assert {answer.status for answer in answers} == {201}
    assert count(cluster).recorded == 3, "the reservation is made once: a row for each of its destinations"


def test_the_schema_is_migrated_around_the_pooler_only(cluster: Cluster, pgbouncer: PgBouncer) -> None:
    direct = cluster.db.kw["bind"].url.set(drivername="postgresql").render_as_string(hide_password=False)

    refused = _run(cluster, "migrate")
    migrated = _run(cluster, "migrate", DATABASE_DIRECT_URL=direct)

    assert refused.returncode == 1 and "Set DATABASE_DIRECT_URL" in refused.stderr
    assert (migrated.returncode, migrated.stderr) == (0, "")


def test_the_schema_of_another_database_is_not_migrated(cluster: Cluster, pgbouncer: PgBouncer) -> None:
    url = cluster.db.kw["bind"].url.set(drivername="postgresql")
    with cluster.db.kw["bind"].connect().execution_options(isolation_level="AUTOCOMMIT") as server:
        server.execute(text("CREATE DATABASE another"))

    refused = _run(
        cluster, "migrate", DATABASE_DIRECT_URL=url.set(database="another").render_as_string(hide_password=False)
    )
    unreachable = _run(cluster, "migrate", DATABASE_DIRECT_URL="postgresql://127.0.0.1:1/holdfast")

    assert refused.returncode == 1 and "leads to another database than DATABASE_URL" in refused.stderr
    assert unreachable.returncode == 1 and "Check DATABASE_DIRECT_URL" in unreachable.stderr


@pytest.mark.parametrize("trouble", ["it is killed", "it is paused"])
def test_an_outage_of_the_pooler_heals(cluster: Cluster, pgbouncer: PgBouncer, seed: int, trouble: str) -> None:
    _start(cluster)
    (api,) = cluster.apis

    with Load([api.port], [cluster.an_item(100_000).id], seed, clients=4) as load:
        load.wait(answers=50)
        if trouble == "it is killed":
            pgbouncer.stop()
            wait_until("the API is not ready", lambda: not api.is_ready())
            pgbouncer.start()
        else:
            pgbouncer.command("PAUSE")
            wait_until("the API is not ready", lambda: not api.is_ready())
            pgbouncer.command("RESUME")
        wait_until("the API is ready", api.is_ready)
        load.wait(answers=50)
    wait_until_drained(cluster)

    assert load.unexpected == []
    check(cluster, answered=load.answered, repeats_at_most=IN_FLIGHT)


def _start(cluster: Cluster, *, workers: bool = True) -> None:
    cluster.partners.ready()
    api = cluster.api()
    if workers:
        cluster.worker()
        cluster.scheduler()
    api.ready()


def _run(cluster: Cluster, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    program, *arguments = command
    return subprocess.run(
        [ROOT / "bin" / program, *arguments],
        env={"PATH": "/usr/bin:/bin", **cluster.environment, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def _settings(url: str, connections: int) -> list[tuple[object, ...]]:
    """Return what another client finds set on this many connections to PostgreSQL at the same time."""
    found: list[tuple[object, ...]] = []
    with ExitStack() as others:
        for _ in range(connections):
            other = others.enter_context(psycopg.connect(url))
            found.append(tuple(other.execute(f"SHOW {name}".encode()).fetchone() for name in SETTINGS))
    return found
