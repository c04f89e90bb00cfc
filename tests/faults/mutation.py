"""A plugin of pytest, for a process of its own: the tests import one module of the product without its guard.

The environment says which guard, and on which database the tests run (see `verdict_on`). The file of the module stays
as it is. A process that a test started would have the guard.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

import pytest

from tests.faults.guards import MUTANTS
from tests.faults.mutant import Mutant

ROOT = Path(__file__).parents[2]

#: The title of the mutant, and the database for the tests if they need not start one of their own.
TITLE, DATABASE = "HOLDFAST_MUTANT", "HOLDFAST_MUTANT_DATABASE"

#: What pytest exits with if all tests passed, and if some failed. Anything else says that they could not run.
PASSED, FAILED = 0, 1

#: A test that a mutant makes wait for ever fails after this long.
TEST_SECONDS = 30


@dataclass(frozen=True)
class Verdict:
    """How a run of tests ended; `noticed_by` is the first test that failed."""

    status: int
    noticed_by: str
    output: str


def verdict_on(tests: Sequence[str], mutant: Mutant | None = None, *, database_url: str = "") -> Verdict:
    """Run tests with the guard of a mutant taken away, until the first one fails."""
    # The other plugins take longer to load than most tests to run.
    command = [sys.executable, "-m", "pytest", "-p", "pytest_timeout", "-p", __name__, "-p", "no:cacheprovider"]
    options = ["-x", "-o", "addopts=--strict-markers", "--timeout", str(TEST_SECONDS), "--tb", "short"]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "PYTHONPATH"))}
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        environment = inherited | {
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "HYPOTHESIS_STORAGE_DIRECTORY": folder,
            TITLE: mutant.title if mutant else "",
            DATABASE: database_url,
        }
        ended = subprocess.run(
            [*command, *options, *tests], check=False, cwd=ROOT, env=environment, capture_output=True, text=True
        )
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", ended.stdout, re.MULTILINE)
    return Verdict(ended.returncode, failed[1] if failed else "", ended.stdout + ended.stderr)


class _Finder(MetaPathFinder):
    """Finds the module of a mutant, and nothing else."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._mutant.module:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        assert spec and spec.origin
        spec.loader = _Loader(fullname, spec.origin, self._mutant)
        return spec


class _Loader(SourceFileLoader):
    """Compiles a module without its guard, and stores nothing of that."""

    def __init__(self, fullname: str, path: str, mutant: Mutant) -> None:
        super().__init__(fullname, path)
        self._mutant = mutant

    def get_code(self, fullname: str) -> CodeType:
        source = self._mutant.mutate(Path(self.path).read_text())
        return self.source_to_code(source.encode(), self.path)


class _GivenPostgreSQL:
    """Replaces the server of `deploy.embedded`, because the tests have a database already."""

    def __init__(self, home: Path) -> None:
        self.url = os.environ[DATABASE]

    def stop(self, mode: str = "fast") -> None:
        """Do not stop the server: another process has started it."""


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests() -> None:
    """Install the mutant before a conftest imports the product."""
    if title := os.environ.get(TITLE):
        (mutant,) = (mutant for mutant in MUTANTS if mutant.title == title)
        assert mutant.module not in sys.modules, f"{mutant.module} was imported too early"
        sys.meta_path.insert(0, _Finder(mutant))
    if os.environ.get(DATABASE):
        from deploy import embedded

        embedded.PostgreSQL = _GivenPostgreSQL  # type: ignore[assignment, misc]
