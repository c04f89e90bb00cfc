"""Running the commands of bin/ as cron does: from another directory, with a bare PATH and little else."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from domain.runtime.settings import HOME, ROOT
from tests.support.waiting import PATIENCE_SECONDS


def run_command(command: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command on the database of this test run, unless `DATABASE_URL` names another, and wait for its end."""
    return run_bare(command, *arguments, **(_settings() | environment))


def run_bare(command: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command without any settings but these, and wait for its end."""
    return subprocess.run(
        [ROOT / "bin" / command, *arguments],
        cwd="/",
        env=bare(environment),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )


def start_command(
    command: str, *arguments: str, stderr: IO[bytes] | int | None = None, **environment: str
) -> subprocess.Popen[bytes]:
    """Start a command on the database of this test run, and do not wait for its end."""
    return subprocess.Popen(
        [ROOT / "bin" / command, *arguments],
        cwd="/",
        env=bare(_settings() | environment),
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


def _settings() -> dict[str, str]:
    return {name: os.environ[name] for name in ("DATABASE_URL", "WEBHOOK_PRIVATE_NETWORKS") if name in os.environ}
