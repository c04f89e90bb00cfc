"""A worker outlives the death of any of its processes, and says so."""

import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from domain import outbox
from domain.runtime.processes.restarts import CRASH_LOOP
from tests.proofs.checker import check, wait_until_drained
from tests.proofs.cluster.cluster import Cluster
from tests.proofs.cluster.processes import Process, is_alive, kill, kill_until
from tests.proofs.conftest import Open
from tests.proofs.load import Load
from tests.support.ports import free_port
from tests.support.waiting import PATIENCE_SECONDS, wait_until
from tests.worker.telemetry.test_exposition import eventually

#: What the documentation says of every process.
GONE_WITHIN_SECONDS = 10.0

#: Rows of one batch, which is what may be sent and not settled in each lane: at the partner, and in the journal.
BATCH, WHOLE_BATCH = 5, 1_000


@pytest.fixture
def cluster(open_cluster: Open) -> Cluster:
    cluster = open_cluster(batch_size=BATCH, WORKER_METRICS_PORT="0")
    cluster.scheduler()
    cluster.partners.ready()
    return cluster


def live(cluster: Cluster) -> int:
    """Return how many processes of workers show that they live, which they do when they are open."""
    with cluster.db.begin() as session:
        return len(outbox.find_liveness_keys(session).live)


def died(worker: Process, times: int) -> list[str]:
    """Return what the worker has said of its dead processes, as soon as it has said so that many times."""
    wait_until(f"{times} deaths are logged", lambda: len(worker.events("worker.process_died")) >= times)
    return [event["message"] for event in worker.events("worker.process_died")]


def test_killed_processes_are_back_and_nothing_is_lost(cluster: Cluster, seed: int) -> None:
    api, worker = cluster.api().ready(), cluster.worker(processes=2)
    killed = 0

    with Load([api.port], [cluster.an_item(100_000).id], seed) as load:
        for _ in range(3):
            load.wait(answers=20)
            before = worker.forked(2)
            leasing = wait_until("a process delivers", lambda before=before: before & {*cluster.leased_lanes()})  # type: ignore[misc]
            kill(max(leasing))
            killed += 1
            worker.forked(2, but=[max(leasing)])
        load.wait(answers=20)
    wait_until_drained(cluster)

    repeats = {"partner": killed * BATCH * 4 * 3, "journal": killed * WHOLE_BATCH}
    check(cluster, repeats_at_most=repeats, answered=load.answered)
    assert all(
        "Other processes continue" in message and "Another one is started" in message for message in died(worker, 3)
    )
    assert worker.is_running()


def test_a_process_that_ends_by_itself_is_replaced_too(cluster: Cluster) -> None:
    worker = cluster.worker(processes=1)
    (first,) = worker.forked(1)
    wait_until("it works", cluster.destinations)

    psutil.Process(first).terminate()

    worker.forked(1, but=[first])
    assert [event["ended_by"] for event in worker.events("worker.process_died")] == ["exit code 0"]


def test_a_crash_loop_ends_the_worker_and_says_why(cluster: Cluster, tmp_path: Path) -> None:
    """Something has cleaned the folder for temporary files, where processes share their metrics."""
    worker = cluster.worker(processes=1, TMPDIR=str(tmp_path))
    (first,) = worker.forked(1)
    wait_until("it works", cluster.destinations)

    for folder in tmp_path.iterdir():
        shutil.rmtree(folder)
    kill(first)

    assert worker.popen.wait(PATIENCE_SECONDS) == 1
    assert len(worker.events("worker.process_died")) == CRASH_LOOP - 1
    (end,) = worker.events("worker.crash_loop")
    assert "mend that" in end["message"] and end["ended_by"] == "exit code 1"
    assert "FileNotFoundError" in worker.log.read_text()


def test_a_process_that_dies_again_and_again_takes_no_other_along(cluster: Cluster) -> None:
    worker = cluster.worker(processes=2)
    untouched = min(worker.forked(2))

    kill_until(worker, lambda: worker.events("worker.crash_loop"), but=[untouched])
    cluster.hold(cluster.an_item(100), 10)
    wait_until_drained(cluster)

    assert "The others work on" in worker.events("worker.crash_loop")[0]["message"]
    assert untouched in worker.forked(2)


def test_a_configuration_that_has_become_wrong_ends_no_process_that_works(cluster: Cluster) -> None:
    worker = cluster.worker(processes=2)
    wait_until("both have read the configuration", lambda: live(cluster) == 2)
    first, second = worker.forked(2)

    (cluster.home / "routes.toml").write_text("destinations = nonsense")
    kill(first)
    (kept,) = wait_until("it can't start another one", lambda: worker.events("worker.wrong_configuration"))

    assert "continue with what they have read" in kept["message"]
    assert worker.forks() == {second}
    kill(second)
    assert worker.popen.wait(PATIENCE_SECONDS) == 2
    assert len(worker.events("worker.process_died")) == 2
    end = worker.events("worker.wrong_configuration")[-1]
    assert "the lines above name what is wrong" in end["message"]
    assert "routes.toml" in worker.log.read_text()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_log_that_can_not_be_written_stops_neither_the_worker_nor_its_end(cluster: Cluster) -> None:
    (cluster.home / f"worker-{len(cluster.started)}.log").symlink_to("/dev/full")
    worker = cluster.worker(processes=2)
    first, _ = worker.forked(2)
    wait_until("they work", cluster.destinations)

    kill(first)
    worker.forked(2, but=[first])

    worker.popen.send_signal(signal.SIGTERM)
    assert worker.popen.wait(GONE_WITHIN_SECONDS) == 0


def stop_during_a_pause(worker: Process, end: Callable[[], None]) -> int:
    """Kill the process of a worker until the next one waits for its start, and end the worker then."""
    for times in range(1, 4):
        kill(*worker.forked(1))
        died(worker, times)
    assert "started in 2 s" in died(worker, 3)[-1]
    assert not worker.forks()
    end()
    return worker.popen.wait(GONE_WITHIN_SECONDS)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_worker_that_waits_to_start_a_process_again_ends_when_it_has_to(
    cluster: Cluster, number: signal.Signals
) -> None:
    worker = cluster.worker(processes=1)

    assert stop_during_a_pause(worker, lambda: worker.send(number)) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("whole_group", [True, False])
def test_any_signal_to_end_is_obeyed_with_exit_code_0(
    cluster: Cluster, number: signal.Signals, whole_group: bool
) -> None:
    worker = cluster.worker(processes=2)
    worker.forked(2)
    wait_until("they work", cluster.destinations)

    worker.send(number) if whole_group else worker.popen.send_signal(number)

    assert worker.popen.wait(GONE_WITHIN_SECONDS) == 0
    assert not worker.events("worker.process_died")


def test_no_process_outlives_a_worker_that_was_killed(cluster: Cluster) -> None:
    """Also one that waits for its database, and the one that serves the metrics."""
    workers = [
        cluster.worker(processes=2, WORKER_METRICS_PORT=str(free_port())),
        cluster.worker(processes=1, DATABASE_URL="postgresql://127.0.0.1:1/nowhere"),
    ]
    orphans = workers[0].forked(3) | workers[1].forked(1)
    wait_until("they work", cluster.destinations)
    wait_until("one waits for its database", lambda: workers[1].events("worker.waits"))

    for worker in workers:
        worker.popen.kill()

    wait_until("all have ended", lambda: not any(map(is_alive, orphans)), within=GONE_WITHIN_SECONDS)


def test_the_metrics_of_a_worker_add_up_over_a_restart(cluster: Cluster, tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    worker = cluster.worker(processes=1, TMPDIR=str(tmp_path), WORKER_METRICS_PORT=str(port))
    worker.forked(2)
    cluster.hold(cluster.an_item(100), 10)
    delivered = eventually(url, lambda seen: seen.get("holdfast_outbox_delivered_total[journal]", 0) >= 10)
    (gauges,) = tmp_path.glob("holdfast-metrics-*/gauge_livesum_*.db")

    killed = int(gauges.stem.rpartition("_")[2])
    kill(killed)
    worker.forked(2, but=[killed])
    cluster.hold(cluster.an_item(100), 10)
    after = eventually(
        url,
        lambda seen: (
            seen["holdfast_outbox_delivered_total[journal]"]
            >= delivered["holdfast_outbox_delivered_total[journal]"] + 10
            and "holdfast_lanes_leased[journal]" in seen
        ),
    )

    assert not gauges.exists()
    assert after["holdfast_lanes_leased[journal]"] >= 0


def test_the_process_that_serves_the_metrics_is_started_again(cluster: Cluster) -> None:
    port = free_port()
    worker = cluster.worker(processes=1, WORKER_METRICS_PORT=str(port))
    eventually(f"http://127.0.0.1:{port}", lambda _: True)
    (server,) = [one.pid for one in psutil.net_connections("tcp4") if one.laddr.port == port and one.status == "LISTEN"]

    kill(server)

    assert "metrics of this worker are not served meanwhile" in died(worker, 1)[0]
    eventually(f"http://127.0.0.1:{port}", lambda _: True)
