"""A wrong setting: no process starts, and each says which variable it is."""

import os
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from domain.runtime.settings import ROOT, Settings
from tests.proofs.processes import free_port
from tests.support.serving import PATIENCE_SECONDS

API, SCHEDULER = "bin/api", "bin/scheduler"
PROCESSES = (API, SCHEDULER, "bin/worker", "bin/process-outbox", "bin/expire-reservations")

#: One wrong value for each variable that there is. Others: see test_settings.py.
WRONG = {
    "DATABASE_URL": "mysql://127.0.0.1/holdfast",
    "REDIS_URL": "redis://127.0.0.1:port",
    "BROKER_URL": "kafka://127.0.0.1",
    "HOLDFAST_ROUTES": "/nowhere/routes.toml",
    "WEBHOOK_PRIVATE_NETWORKS": "10.1.0.0/99",
    "CONFIRMATION_URL": "ftp://127.0.0.1/",
    "CONFIRMATION_TIMEOUT_SECONDS": "0",
    "WEBHOOK_TIMEOUT_SECONDS": "soon",
    "HOLD_SECONDS": "0",
    "HOST": "localhost",
    "PORT": "http",
    "WEB_CONCURRENCY": "0",
    "QUEUE_LIMIT": "0",
    "WORKER_METRICS_PORT": "-1",
    "SCHEDULER_METRICS_PORT": "65536",
    "OUTBOX_RETENTION_DAYS": "-1",
    "LOG_LEVEL": "LOUD",
}


def test_every_variable_is_tried() -> None:
    assert set(WRONG) == {field.alias for field in Settings.model_fields.values()}


@pytest.mark.parametrize("process", PROCESSES)
def test_no_process_starts_with_wrong_settings_and_each_of_them_is_named(settings: Settings, process: str) -> None:
    said = refusal(process, WRONG)

    assert [variable for variable in WRONG if f"\n{variable}: " not in said] == []


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("variable", ["DATABASE_URL", "LOG_LEVEL"])
def test_one_wrong_setting_is_enough(settings: Settings, process: str, variable: str) -> None:
    said = refusal(process, {variable: WRONG[variable]})

    assert f"\n{variable}: " in said


@pytest.mark.parametrize("process", [process for process in PROCESSES if process != SCHEDULER])
def test_no_process_that_reads_the_routes_starts_with_wrong_ones(
    settings: Settings, tmp_path: Path, process: str
) -> None:
    file = tmp_path / "routes.toml"
    file.write_text("destination = ")

    said = refusal(process, {"HOLDFAST_ROUTES": str(file), "PORT": str(free_port())})

    assert "\nHOLDFAST_ROUTES: " in said
    assert str(file) in said


@pytest.mark.parametrize(("host", "variable"), [("127.0.0.1", "PORT"), ("192.0.2.1", "HOST")])
def test_an_api_that_can_not_listen_says_why(settings: Settings, host: str, variable: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = refusal(API, {"HOST": host, "PORT": str(taken.getsockname()[1])})

    assert f"\n{variable}: " in said


def refusal(program: str, environment: Mapping[str, str]) -> str:
    """Start a process that must refuse to start. Return what it said."""
    process = subprocess.Popen(
        [ROOT / program],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        _, said = process.communicate(timeout=PATIENCE_SECONDS)
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    assert process.returncode == 2, said
    assert "Traceback" not in said
    return said
