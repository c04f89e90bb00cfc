"""The import contracts of pyproject.toml: a module that breaks one is found."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from domain.runtime.settings import ROOT

pytestmark = pytest.mark.slow

PACKAGES = ("api", "domain", "worker")

#: Where an import is planted, what it imports, and the contract that it breaks.
PLANTED = [
    ("domain/runtime/backoff.py", "import domain.items.table", "Inside the domain, arrows point down"),
    (
        "domain/outbox/delivery/lanes.py",
        "import domain.outbox.delivery.claim",
        "Inside the delivery, arrows point down",
    ),
    (
        "domain/outbox/delivery/outcomes.py",
        "import domain.outbox.operations.replay",
        "operating it rests on delivering",
    ),
    ("worker/sinks/log.py", "import worker.sinks.null", "Sinks do not know each other"),
    ("api/items/routes.py", "import api.reservations.routes", "Inside the API, arrows point down"),
    ("api/items/schemas.py", "import worker.app", "The API and the workers do not know each other"),
    ("domain/items/stock.py", "import redis", "The domain speaks to PostgreSQL and to nothing else"),
    (
        "worker/telemetry/metrics.py",
        "import prometheus_client",
        "Only domain.runtime.metrics imports prometheus_client",
    ),
    ("domain/items/table.py", "import domain.items.stock", "No package has a circle inside"),
]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("contracts")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", root)
    return root


def linted(root: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


@pytest.mark.xdist_group("contracts")
def test_the_code_keeps_every_contract(copy: Path) -> None:
    result = linted(copy)

    assert result.returncode == 0, result.stdout


@pytest.mark.xdist_group("contracts")
@pytest.mark.parametrize(("place", "statement", "contract"), PLANTED)
def test_a_planted_import_breaks_its_contract(copy: Path, place: str, statement: str, contract: str) -> None:
    module = copy / place
    original = module.read_text()
    module.write_text(f"{original}\n{statement}\n")

    result = linted(copy)

    module.write_text(original)
    assert result.returncode == 1
    assert f"{contract}" in result.stdout.partition("Broken contracts")[2]
