"""A run of tests whose process dies."""

import subprocess
import sys
from pathlib import Path

import pytest

from domain.runtime.settings import ROOT

CONFTEST = """
from tests.support.scheduling import Scheduling

def pytest_xdist_make_scheduler(config, log):
    return Scheduling(config, log)
"""

TESTS = """
import os, signal, pytest

@pytest.mark.parametrize("number", range(50))
def test_before(number):
    pass

def test_dies():
    os.kill(os.getpid(), signal.SIGKILL)

@pytest.mark.parametrize("number", range(50))
def test_after(number):
    pass
"""


@pytest.mark.slow
def test_the_run_goes_on_and_names_the_test_in_which_its_process_died(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_dying.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadgroup", str(tmp_path)]

    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)

    assert "1 failed, 100 passed" in run.stdout
    assert "crashed while running" in run.stdout and "test_dying.py::test_dies" in run.stdout
