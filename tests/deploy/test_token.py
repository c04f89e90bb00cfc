"""bin/token where there is no stand-in for an identity provider: it says so, and what to do."""

from pathlib import Path

import pytest

from tests.support.commands import run_bare
from tests.support.ports import free_port

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("port", [str(free_port()), "any"], ids=["nobody listens", "no port"])
def test_without_the_stand_in_it_says_what_to_start(tmp_path: Path, port: str) -> None:
    run = run_bare("token", "--role", "guest", HOLDFAST_HOME=str(tmp_path), PARTNERS_PORT=port)

    assert (run.returncode, run.stdout) == (2, "")
    assert "There is no token" in run.stderr and port in run.stderr and "bin/up runs it" in run.stderr
    assert "Holdfast does not start" not in run.stderr and "Traceback" not in run.stderr
