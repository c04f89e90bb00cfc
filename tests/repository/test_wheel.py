"""The wheel: installed somewhere else, it serves, delivers and checks events, with nothing of this checkout."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from domain.runtime.settings import ROOT, Settings
from tests.support.builders import Db, an_item
from tests.support.ports import free_port
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel contains, and nothing else."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder / "wheels", ROOT],
        check=True,
        cwd=folder,
        capture_output=True,
    )
    (wheel,) = (folder / "wheels").glob("holdfast-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", folder / "site", wheel], check=True, capture_output=True)
    return folder / "site"


def run(site: Path, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
    """Start a module of the installed wheel, from an empty folder."""
    away = site.parent / "away"
    away.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-P", "-m", *arguments], cwd=away, env=os.environ | {"PYTHONPATH": str(site)} | environment
    )


@contextmanager
def serving(site: Path) -> Iterator[httpx.Client]:
    port = free_port()
    process = run(site, "api.main", PORT=str(port))
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=20) as client:
            wait_until("the installed API is ready", lambda: _is_ready(client))
            yield client
    finally:
        process.terminate()
        assert process.wait(15) == 0


def _is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/health/ready").is_success
    except httpx.TransportError:
        return False


def test_the_installed_wheel_migrates_serves_and_checks_events(installed: Path, db: Db, settings: Settings) -> None:
    item = an_item(db)
    assert run(installed, "migrations.main").wait(30) == 0

    with serving(installed) as client:
        made = client.post("/reservations", json={"item_id": item.id, "quantity": 1})

    # The events of a reservation are checked against their schemas when they are recorded.
    assert made.status_code == 201, made.text
    assert run(installed, "worker.main", "--help").wait(30) == 0
