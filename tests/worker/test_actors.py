"""A worker that starts before its database is migrated waits, and says what to do."""

import subprocess
from pathlib import Path

import pytest

from deploy.embedded import PostgreSQL
from domain.runtime.settings import ROOT, Settings
from tests.support.commands import bare
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow


def test_a_worker_whose_database_is_not_migrated_advises_to_migrate_it(
    postgresql: PostgreSQL, settings: Settings, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    variables = {"DATABASE_URL": postgresql.create("bare"), "REDIS_URL": settings.redis_url, "WORKER_METRICS_PORT": "0"}
    with log.open("wb") as output:
        worker = subprocess.Popen([ROOT / "bin" / "worker"], env=bare(variables), stdout=output, stderr=output)
    try:
        wait_until("it waits", lambda: "worker.waits" in log.read_text())
    finally:
        worker.terminate()
        worker.wait()

    (line, *_) = [line for line in log.read_text().splitlines() if "worker.waits" in line]
    assert "does not exist" in line and "run bin/migrate" in line
