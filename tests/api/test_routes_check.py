"""Processes and the routes in force: none records by others, and a change of the routes stops none that runs."""

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc
import httpx
import psycopg
import pytest

from api.grpc.proto.reservation_pb2_grpc import ReservationServiceStub
from deploy.embedded import PostgreSQL
from domain.runtime.settings import HOME, ROOT, Settings
from tests.api.grpc.requests import reserving
from tests.api.test_startup import API, GRPC, refusal
from tests.support.api_process import serving
from tests.support.builders import Db
from tests.support.commands import a_routes_file, run_command
from tests.support.ports import free_port
from tests.support.waiting import PATIENCE_SECONDS, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def own_database(settings: Settings) -> Iterator[PostgreSQL]:
    """A migrated database of its own, on a server that the test may stop."""
    server = PostgreSQL(Path(tempfile.mkdtemp(prefix="pg-", dir=HOME)))
    environment = os.environ | {"DATABASE_URL": server.url}
    subprocess.run([ROOT / "bin" / "migrate"], env=environment, check=True, capture_output=True)
    yield server
    server.stop("immediate")


@pytest.mark.parametrize("process", [API, GRPC, "bin/worker"])
def test_no_process_that_records_starts_while_other_routes_are_in_force(db: Db, tmp_path: Path, process: str) -> None:
    run_command("destinations", "use-routes", "--why=test", HOLDFAST_ROUTES=a_routes_file(tmp_path, "shop"))

    message = refusal(process, {"PORT": str(free_port()), "GRPC_PORT": str(free_port()), "WORKER_METRICS_PORT": "0"})

    assert message.count("HOLDFAST_ROUTES: other routes are in force") == 1
    assert "shop: missing, had *" in message and "bin/destinations use-routes --why" in message


def test_an_api_continues_when_the_routes_are_changed_and_says_so_until_it_is_restarted(db: Db, tmp_path: Path) -> None:
    with serving() as served:
        assert served.client.get("/health/ready").json()["routes"] == "ok"
        run_command("destinations", "use-routes", "--why=test", HOLDFAST_ROUTES=a_routes_file(tmp_path, "shop"))

        ready = served.client.get("/health/ready")
        made = served.client.post("/items", json={"sku": "A", "name": "A", "available_quantity": 1})
        reserved = served.client.post("/reservations", json={"sku": "A", "quantity": 1})

    assert (ready.status_code, made.status_code, reserved.status_code) == (200, 201, 201)
    assert ready.json()["routes"].startswith("other routes are in force since this process started")


@pytest.mark.parametrize("process", [API, GRPC])
def test_a_process_that_started_before_its_database_records_nothing_by_other_routes_and_ends(
    own_database: PostgreSQL, tmp_path: Path, process: str
) -> None:
    routes = a_routes_file(tmp_path, "shop")
    run_command("destinations", "use-routes", "--why=test", HOLDFAST_ROUTES=routes, DATABASE_URL=own_database.url)
    own_database.stop("immediate")
    port = free_port()

    with started(process, own_database.url, port, tmp_path / "log") as process_without_routes:
        wait_until("it is asked", lambda: is_answered(process, port))
        own_database.start()
        wait_until("it ends", lambda: process_without_routes.poll() is not None or not is_answered(process, port))
        code = process_without_routes.wait(PATIENCE_SECONDS)

    log = (tmp_path / "log").read_text()
    assert code == 2, log
    assert log.count("HOLDFAST_ROUTES: other routes are in force") == 1
    assert "Traceback" not in log
    with psycopg.connect(own_database.url) as connection:
        assert connection.execute("SELECT count(*) FROM reservations").fetchone() == (0,)


@contextmanager
def started(process: str, url: str, port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process of the API or of gRPC without a routes file, and end it with the block."""
    settings = {"DATABASE_URL": url, "PORT": str(port), "GRPC_PORT": str(port), "GRPC_METRICS_PORT": "0"}
    with log.open("wb") as output:
        popen = subprocess.Popen(
            [ROOT / process], env=os.environ | settings, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield popen
    finally:
        with suppress(ProcessLookupError):
            os.killpg(popen.pid, signal.SIGKILL)
        popen.wait()


def is_answered(process: str, port: int) -> bool:
    """Ask for a reservation, which can't be made. Return whether the process answers at all."""
    if process == API:
        with suppress(httpx.TransportError):
            request = {"sku": "NONE", "quantity": 1}
            return bool(httpx.post(f"http://127.0.0.1:{port}/reservations", json=request, trust_env=False).status_code)
        return False
    with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.use_local_subchannel_pool", 1)]) as channel:
        try:
            ReservationServiceStub(channel).reserve(reserving(), timeout=PATIENCE_SECONDS)
        except grpc.RpcError as error:
            return "connect" not in str(error)
        return True
