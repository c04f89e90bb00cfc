"""Starting with a wrong setting: no process starts, and its message names the variable."""

import os
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest

from domain.runtime.settings import ROOT, Settings
from tests.support.api_process import serving
from tests.support.builders import Db
from tests.support.ports import free_port
from tests.support.waiting import PATIENCE_SECONDS

pytestmark = pytest.mark.slow

API, GRPC, SCHEDULER = "bin/api", "bin/grpc", "bin/scheduler"
PROCESSES = (API, GRPC, SCHEDULER, "bin/worker", "bin/process-outbox", "bin/expire-reservations", "bin/prune")

#: One wrong value for each variable. test_settings.py has others.
WRONG = {
    "DATABASE_URL": "mysql://127.0.0.1/holdfast",
    "DATABASE_DIRECT_URL": "postgresql://a:b@c@127.0.0.1/holdfast",
    "REDIS_URL": "redis://127.0.0.1:port",
    "BROKER_URL": "kafka://127.0.0.1",
    "HOLDFAST_ROUTES": "/nowhere/routes.toml",
    "WEBHOOK_PRIVATE_NETWORKS": "10.1.0.0/99",
    "CONFIRMATION_URL": "ftp://127.0.0.1/",
    "CONFIRMATION_TIMEOUT_SECONDS": "0",
    "SQS_BOOKING_REQUEST_QUEUE_URL": "https://sqs.us-east-1.amazonaws.com/",
    "SQS_BOOKING_CONFIRMATION_QUEUE_URL": "sqs://sqs.us-east-1.amazonaws.com/123456789012/confirmations",
    "INVENTORY_URL": "ftp://127.0.0.1/",
    "PRICING_URL": "nowhere",
    "PAYMENT_URL": "https://",
    "STEP_TIMEOUT_SECONDS": "61",
    "DELIVERY_TIMEOUT_SECONDS": "soon",
    "HOLD_SECONDS": "0",
    "REQUIRE_IDEMPOTENCY_KEYS": "perhaps",
    "HOST": "localhost",
    "PORT": "http",
    "GRPC_PORT": "0",
    "GRPC_METRICS_PORT": "many",
    "GRPC_REGISTER_RESOURCES": "perhaps",
    "WEB_CONCURRENCY": "0",
    "QUEUE_LIMIT": "0",
    "WORKER_METRICS_PORT": "-1",
    "SCHEDULER_METRICS_PORT": "65536",
    "OUTBOX_RETENTION_DAYS": "-1",
    "FEED_RETENTION_DAYS": "0",
    "AUTH": "open",
    "AUTH_JWKS_URL": "http://id.example/jwks.json",
    "AUTH_PUBLIC_KEY_FILE": "/nowhere/key.pem",
    "AUTH_ALGORITHMS": "RS256, HS256",
    "AUTH_LEEWAY_SECONDS": "-1",
    "RATE_LIMIT": "many",
    "RATE_LIMIT_ADDRESS": "10/fortnight",
    "RATE_LIMIT_FAILED_AUTH": "-1/minute",
    "RATE_LIMITS": "reservations.make",
    "CORS_ORIGINS": "*",
    "TRUSTED_PROXIES": "10.1.0.0/99",
    "LOG_LEVEL": "LOUD",
}


#: Those that may be any text. Those of PII_KEYS and PII_KEY_SERVICE are read by the processes that need them: see
#: tests/domain/privacy.
ANY_TEXT = {
    "AUTH_ISSUER",
    "AUTH_AUDIENCE",
    "AUTH_ROLES_CLAIM",
    "AUTH_VENUES_CLAIM",
    "AUTH_PROVIDERS_CLAIM",
    "AUTH_GUEST_CLAIM",
    "PII_KEYS",
    "PII_KEY_SERVICE",
}


def test_every_variable_has_a_wrong_value_here() -> None:
    assert set(WRONG) == {field.alias for field in Settings.model_fields.values()} - ANY_TEXT


def test_what_lets_anybody_in_starts_on_no_address_that_others_reach(settings: Settings) -> None:
    message = refusal(API, {"AUTH": "none", "HOST": "0.0.0.0"})

    assert "AUTH: none lets anybody do everything" in message and "0.0.0.0" in message


@pytest.mark.parametrize("process", PROCESSES)
def test_no_process_starts_with_wrong_settings_and_each_setting_is_named(settings: Settings, process: str) -> None:
    message = refusal(process, WRONG)

    assert [variable for variable in WRONG if not names(message, variable)] == []


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("variable", ["DATABASE_URL", "LOG_LEVEL"])
def test_one_wrong_setting_is_enough(settings: Settings, process: str, variable: str) -> None:
    message = refusal(process, {variable: WRONG[variable]})

    assert names(message, variable)


@pytest.mark.parametrize("process", [process for process in PROCESSES if process != SCHEDULER])
def test_no_process_that_reads_the_routes_starts_with_wrong_ones(
    settings: Settings, tmp_path: Path, process: str
) -> None:
    file = tmp_path / "routes.toml"
    file.write_text("destination = ")

    message = refusal(process, {"HOLDFAST_ROUTES": str(file), "PORT": str(free_port())})

    assert names(message, "HOLDFAST_ROUTES")
    assert str(file) in message


@pytest.mark.parametrize(("process", "port"), [(API, "PORT"), (GRPC, "GRPC_PORT")])
@pytest.mark.parametrize(
    ("host", "variable"),
    [("127.0.0.1", ""), ("192.0.2.1", "HOST"), ("::1%eth0", "HOST"), ("fe80::1", "HOST")],
)
def test_a_server_that_can_not_listen_names_the_variable(
    settings: Settings, process: str, port: str, host: str, variable: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        message = refusal(process, {"AUTH": "token", "HOST": host, port: str(taken.getsockname()[1])})

    assert names(message, variable or port)
    assert ("Stop the process" in message) == (not variable)


def test_an_api_ends_if_its_configuration_is_wrong_when_a_process_of_it_starts_again(db: Db, tmp_path: Path) -> None:
    file = tmp_path / "routes.toml"
    file.write_text("")

    with serving(WEB_CONCURRENCY="2", HOLDFAST_ROUTES=str(file)) as served:
        file.write_text("destination = ")
        for child in psutil.Process(served.process.pid).children():
            child.kill()
        code = served.process.wait(PATIENCE_SECONDS)
        log = served.logged()

    assert code == 2
    assert names(log, "HOLDFAST_ROUTES")
    assert "Traceback" not in log


def test_the_help_of_the_api_is_printed_and_nothing_is_served() -> None:
    done = run_api("--help", **WRONG)

    assert (done.returncode, done.stderr) == (0, "")
    for named in ("HOST", "PORT", "WEB_CONCURRENCY", "DATABASE_URL", "Exit codes:", "Example:"):
        assert named in done.stdout


def test_the_api_has_a_version() -> None:
    assert run_api("--version").stdout.startswith("Holdfast, version ")


@pytest.mark.parametrize("arguments", [["--colour"], ["8000"]])
def test_an_unknown_option_of_the_api_is_refused_and_nothing_is_served(arguments: list[str]) -> None:
    refused = run_api(*arguments)

    assert (refused.returncode, refused.stdout) == (2, "")
    assert arguments[0] in refused.stderr


def names(message: str, variable: str) -> bool:
    """Return whether a line of a message begins with the name of a variable."""
    return any(line.startswith(f"{variable}: ") for line in message.splitlines())


def run_api(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run bin/api, which must end by itself."""
    return subprocess.run(
        [ROOT / API, *arguments],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )


def refusal(program: str, environment: Mapping[str, str]) -> str:
    """Start a process that must end with a configuration error. Return its message."""
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
        _, message = process.communicate(timeout=PATIENCE_SECONDS)
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    assert process.returncode == 2, message
    assert "Traceback" not in message
    return message
