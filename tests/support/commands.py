"""Running the commands of bin/ as cron does: from another directory, with a bare PATH and little else."""

import os
import re
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import IO

from domain.runtime.settings import HOME, ROOT
from tests.support.waiting import PATIENCE_SECONDS

#: The modules of the commands that are written with click, by the names in bin/.
MODULES = {
    path.name: found[1]
    for path in sorted((ROOT / "bin").iterdir())
    if path.is_file() and (found := re.search(r"-m (worker\.commands\.\S+)", path.read_text()))
}

#: Variables that only a process sees that is started with them.
STARTED_WITH = frozenset({"TZ", "LD_PRELOAD", "PYTHONPATH", "PYTHONIOENCODING", "LANG", "LC_ALL"})

_forks = get_context("forkserver")
_forks.set_forkserver_preload([*MODULES.values()])


def run_command(command: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command on the database of this test run, unless `DATABASE_URL` names another, and wait for its end."""
    return run_bare(command, *arguments, **(settings_of_tests() | environment))


def run_bare(command: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command without any settings but these, in a process of its own, and wait for its end.

    Most are forks of a process that has imported all commands, because to import SQLAlchemy each time takes longer than
    most tests.
    """
    if command in MODULES and not STARTED_WITH & environment.keys():
        return _run_fork(command, arguments, bare(environment))
    return subprocess.run(
        [ROOT / "bin" / command, *arguments],
        cwd="/",
        env=bare(environment),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )


def _run_fork(
    command: str, arguments: Sequence[str], environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory() as directory:
        output, errors = Path(directory, "stdout"), Path(directory, "stderr")
        process = _forks.Process(target=_become, args=(MODULES[command], arguments, environment, output, errors))
        process.start()
        process.join(PATIENCE_SECONDS)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(command, PATIENCE_SECONDS, output.read_bytes(), errors.read_bytes())
        return subprocess.CompletedProcess(
            [command, *arguments], process.exitcode, output.read_text(), errors.read_text()
        )


def _become(module: str, arguments: Sequence[str], environment: Mapping[str, str], output: Path, errors: Path) -> None:
    """Go on in this process as if it had been started with `python -m` and a module."""
    for descriptor, path in enumerate((Path(os.devnull), output, errors)):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), descriptor)
    sys.stdin, sys.stdout, sys.stderr = (
        open(descriptor, mode, encoding="utf-8")  # noqa: SIM115
        for descriptor, mode in enumerate(("r", "w", "w"))
    )
    os.chdir("/")
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [module, *arguments]
    sys.modules.pop(module)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def start_command(
    command: str, *arguments: str, stderr: IO[bytes] | int | None = None, **environment: str
) -> subprocess.Popen[bytes]:
    """Start a command on the database of this test run, and do not wait for its end."""
    return subprocess.Popen(
        [ROOT / "bin" / command, *arguments],
        cwd="/",
        env=bare(settings_of_tests() | environment),
        stdout=subprocess.PIPE,
        stderr=stderr,
    )


def on_one_line(text: str) -> str:
    """Return what a command printed with its lines joined, for sentences that may be wrapped."""
    return " ".join(text.split())


def a_routes_file(directory: Path, *names: str, url: str = "null:") -> str:
    """Write a routes file with destinations of these names. Return its path."""
    path = directory / "routes.toml"
    path.write_text("".join(f'[[destination]]\nname = "{name}"\nurl = "{url}"\n' for name in names))
    return str(path)


def bare(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment with no more than a command needs to start, and these variables."""
    return {"PATH": "/usr/bin:/bin", "HOLDFAST_HOME": str(HOME)} | dict(environment)


def settings_of_tests() -> dict[str, str]:
    given = "DATABASE_URL", "PII_KEYS", "WEBHOOK_PRIVATE_NETWORKS"
    return {name: os.environ[name] for name in given if name in os.environ}
