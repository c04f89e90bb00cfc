"""bin/help: every command of bin/, with the sentence that its own help begins with."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from domain.runtime.settings import ROOT
from tests.support.commands import on_one_line, run_bare

FILES = sorted((ROOT / "bin").iterdir())


def test_every_file_of_bin_is_listed_once_with_what_it_does() -> None:
    run = run_bare("help")

    assert (run.returncode, run.stderr) == (0, "")
    listed = [line.split() for line in run.stdout.splitlines() if line.startswith("  ")]
    assert sorted(line[0] for line in listed) == [f"bin/{path.name}" for path in FILES]
    assert all(len(line) > 2 for line in listed)
    assert all(len(line) <= 100 for line in run.stdout.splitlines())


@pytest.mark.slow
@pytest.mark.parametrize("name", [path.name for path in FILES if "-m worker.commands." in path.read_text()])
def test_the_help_of_a_command_begins_with_the_sentence_of_the_list(name: str) -> None:
    commands = json.loads(run_bare("help", "--json").stdout)["commands"]
    (summary,) = [command["summary"] for command in commands if command["name"] == f"bin/{name}"]

    run = run_bare(name, "--help")

    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith(f"Usage: bin/{name} ")
    assert on_one_line(run.stdout.partition("\n")[2]).startswith(summary)


def test_a_command_says_how_to_install_what_is_not_installed(tmp_path: Path) -> None:
    for name in ("bin/help", "bin/python"):
        copy = tmp_path / name
        copy.parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, copy)
    bare_python = tmp_path / "path" / "python3"
    bare_python.parent.mkdir()
    bare_python.write_text("#!/bin/sh\nexit 1\n")
    bare_python.chmod(0o755)

    run = subprocess.run(
        [tmp_path / "bin" / "help"],
        env={"PATH": f"{bare_python.parent}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("Holdfast is not installed") and "bin/install" in run.stderr
