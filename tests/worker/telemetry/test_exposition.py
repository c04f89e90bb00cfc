"""/metrics of real processes: each serves its own, several of a kind add up, and an outage of the database shows."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil
import pytest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from deploy.embedded import PostgreSQL
from domain.runtime.settings import HOME, ROOT, Settings
from tests.support.api_process import serving
from tests.support.builders import Db, an_item
from tests.support.outbox import an_aggregate, recorded_for, with_shop
from tests.support.ports import free_port
from tests.support.waiting import PATIENCE_SECONDS, wait_until

pytestmark = pytest.mark.slow

WAKEUPS = "holdfast_scheduler_wakeups_sent_total[process_outbox]"

Figures = dict[str, float]


def shown(url: str) -> Figures:
    """Return every sample at an address by its name and its labels, as Prometheus writes them."""
    answer = httpx.get(f"{url}/metrics", timeout=PATIENCE_SECONDS, trust_env=False).raise_for_status()
    assert answer.headers["Content-Type"].startswith("text/plain")
    samples = (one for family in text_string_to_metric_families(answer.text) for one in family.samples)
    return {_written(one.name, one.labels): one.value for one in samples}


def _written(name: str, labels: dict[str, str]) -> str:
    return name + "".join(f"[{value}]" for _, value in sorted(labels.items()))


@contextmanager
def running(program: str, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process with the settings of the tests, and these, until the block ends. Its log is at `log_of`."""
    with log_of(program).open("wb") as output:
        process = subprocess.Popen(
            [ROOT / "bin" / program, *arguments],
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield process
        process.terminate()
        process.wait(PATIENCE_SECONDS)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE_SECONDS)


def log_of(program: str) -> Path:
    return HOME / f"{program}-metrics.log"


def eventually(url: str, holds: Callable[[Figures], bool]) -> Figures:
    """Return the metrics at an address as soon as the condition holds."""
    seen: Figures = {}

    def look() -> bool:
        with suppress(httpx.TransportError):
            seen.clear()
            seen.update(shown(url))
            return holds(seen)
        return False

    try:
        wait_until(f"{url} shows it", look)
    except AssertionError as error:
        raise AssertionError(f"{error} It shows {seen}") from None
    return seen


def test_the_api_serves_what_it_answered_committed_and_has_to_deliver(api: httpx.Client, db: Db) -> None:
    before = shown(str(api.base_url))
    item = an_item(db, quantity=1)
    for _ in range(2):
        api.post("/reservations", json={"item_id": item.id, "quantity": 1})

    after = shown(str(api.base_url))

    growth = {name: value - before.get(name, 0) for name, value in after.items()}
    assert growth["holdfast_requests_total[make_reservation][201]"] == 1
    assert growth["holdfast_requests_total[make_reservation][409]"] == 1
    assert growth["holdfast_group_commit_set_size_sum"] == 2
    assert growth["holdfast_group_commit_seconds_count"] == 2
    assert after["holdfast_group_commit_queue"] == 0
    assert after["holdfast_outbox_up"] == 1
    assert after["process_resident_memory_bytes"] > 0


def test_an_address_that_is_not_there_is_counted_without_its_name(api: httpx.Client) -> None:
    api.get("/no/such/place")

    assert shown(str(api.base_url))["holdfast_requests_total[none][404]"] >= 1


def test_several_api_processes_add_up_and_only_the_queue_of_a_killed_one_is_gone(db: Db, tmp_path: Path) -> None:
    item = an_item(db, quantity=1_000)
    made = 0
    with serving(WEB_CONCURRENCY="2", TMPDIR=str(tmp_path)) as served:

        def reserve_until_both_have() -> bool:
            nonlocal made
            # Each request uses a connection of its own, because the processes share the connections among them.
            answer = httpx.post(
                f"{served.url}/reservations", json={"item_id": item.id, "quantity": 1}, timeout=PATIENCE_SECONDS
            )
            assert answer.status_code == 201
            made += 1
            return len([file for file in written(tmp_path, "histogram") if committed(file)]) == 2

        wait_until("both processes have committed", reserve_until_both_have)
        found = [shown(served.url)["holdfast_group_commit_set_size_sum"] for _ in range(4)]
        gauges, *_ = written(tmp_path, "gauge")
        killed = psutil.Process(int(gauges.stem.split("_")[-1]))
        killed.kill()
        after = eventually(served.url, lambda _: not gauges.exists())

    assert found == [made] * 4
    assert after["holdfast_group_commit_set_size_sum"] == made
    assert list(tmp_path.iterdir()) == []


def written(folder: Path, kind: str) -> list[Path]:
    return sorted(folder.glob(f"holdfast-metrics-*/{kind}_*.db"))


def committed(file: Path) -> bool:
    metrics = MultiProcessCollector.merge([str(file)])  # type: ignore[no-untyped-call]
    return any(one.value for metric in metrics for one in metric.samples if one.name.endswith("set_size_sum"))


def test_while_the_database_is_down_everything_else_is_shown(settings: Settings) -> None:
    postgresql, port = PostgreSQL(HOME / "metrics"), free_port()
    environment = {"DATABASE_URL": postgresql.url, "SCHEDULER_METRICS_PORT": str(port)}
    # The scheduler sends no wake-up while those of other tests wait for a worker.
    Redis.from_url(settings.redis_url).flushdb()
    subprocess.run([ROOT / "bin" / "migrate"], env=os.environ | environment, check=True, capture_output=True)
    try:
        with serving(**environment) as served, running("scheduler", **environment):
            places = (served.url, f"http://127.0.0.1:{port}")
            for place in places:
                eventually(place, lambda seen: seen["holdfast_outbox_up"] == 1)
            eventually(places[1], lambda seen: WAKEUPS in seen)
            postgresql.stop("immediate")
            api, scheduler = [eventually(place, lambda seen: seen["holdfast_outbox_up"] == 0) for place in places]
            postgresql.start()
            for place in places:
                eventually(place, lambda seen: seen["holdfast_outbox_up"] == 1)
    finally:
        postgresql.stop("immediate")

    assert api["holdfast_requests_total[ready][200]"] >= 1
    assert scheduler[WAKEUPS] >= 1
    assert not [name for name in (*api, *scheduler) if name.startswith("holdfast_outbox_pending")]


@pytest.fixture
def routes(tmp_path: Path) -> str:
    file = tmp_path / "routes.toml"
    file.write_text('[[destination]]\nname = "shop"\nurl = "null:"\n')
    return str(file)


def test_the_processes_of_a_worker_add_up_at_its_port(db: Db, routes: str) -> None:
    port = free_port()
    shop = with_shop(db)
    recorded_for(shop, *(an_aggregate(number % 32) for number in range(64)))
    environment = {"HOLDFAST_ROUTES": routes, "WORKER_METRICS_PORT": str(port), "SCHEDULER_METRICS_PORT": "0"}

    with running("worker", "--processes", "2", "--threads", "2", **environment), running("scheduler", **environment):
        seen = eventually(
            f"http://127.0.0.1:{port}", lambda seen: seen.get("holdfast_outbox_delivered_total[shop]") == 64
        )
        empty = eventually(f"http://127.0.0.1:{port}", lambda seen: seen["holdfast_lanes_leased[shop]"] == 0)

    assert seen["holdfast_outbox_commit_to_delivered_seconds_count[shop]"] == 64
    assert empty["holdfast_outbox_commit_to_delivered_seconds_bucket[shop][+Inf]"] == 64


def test_a_worker_whose_port_is_taken_serves_its_metrics_when_the_port_is_free(db: Db, routes: str) -> None:
    environment = {"HOLDFAST_ROUTES": routes, "SCHEDULER_METRICS_PORT": "0"}
    port = free_port()
    shop = with_shop(db)
    with running("scheduler", SCHEDULER_METRICS_PORT=str(port)):
        eventually(f"http://127.0.0.1:{port}", lambda seen: "holdfast_outbox_up" in seen)
        with running("worker", "--processes", "1", WORKER_METRICS_PORT=str(port), **environment):
            wait_until("it says so", lambda: "WORKER_METRICS_PORT" in log_of("worker").read_text())
            recorded_for(shop, an_aggregate())
            eventually(f"http://127.0.0.1:{port}", lambda seen: seen["holdfast_outbox_pending[shop]"] == 0)


def test_the_server_of_a_workers_metrics_ends_with_it_even_if_it_is_killed(db: Db, routes: str) -> None:
    port = free_port()
    with running("worker", "--processes", "1", HOLDFAST_ROUTES=routes, WORKER_METRICS_PORT=str(port)) as worker:
        eventually(f"http://127.0.0.1:{port}", lambda _: True)
        parts = psutil.Process(worker.pid).children(recursive=True)
        worker.kill()
        worker.wait(PATIENCE_SECONDS)

        def is_free() -> bool:
            with suppress(httpx.TransportError):
                shown(f"http://127.0.0.1:{port}")
                return False
            return True

        wait_until("the port is free", is_free)
        for part in parts:
            with suppress(psutil.NoSuchProcess):
                part.kill()
