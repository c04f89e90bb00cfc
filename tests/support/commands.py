"""The keys of bin/, turned as cron does: from another directory, with a bare PATH and little else."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from domain.runtime.settings import HOME, ROOT

#: No key takes as long.
PATIENCE_SECONDS = 60


def turned(key: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Turn a key on the database of this test run, unless `DATABASE_URL` says otherwise, and wait for what it does."""
    return subprocess.run(
        [ROOT / "bin" / key, *arguments],
        cwd="/",
        env=bare(environment),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )


def turning(
    key: str, *arguments: str, stderr: IO[bytes] | int | None = None, **environment: str
) -> subprocess.Popen[bytes]:
    """Turn a key and do not wait."""
    return subprocess.Popen(
        [ROOT / "bin" / key, *arguments], cwd="/", env=bare(environment), stdout=subprocess.PIPE, stderr=stderr
    )


def routed(directory: Path, *names: str, url: str = "null:") -> str:
    """Write a routes file with these destinations. Return where it is."""
    path = directory / "routes.toml"
    path.write_text("".join(f'[[destination]]\nname = "{name}"\nurl = "{url}"\n' for name in names))
    return str(path)


def bare(environment: Mapping[str, str]) -> dict[str, str]:
    """All that a key finds in its environment."""
    home = {"PATH": "/usr/bin:/bin", "HOLDFAST_HOME": str(HOME)}
    ours = {name: os.environ[name] for name in ("DATABASE_URL", "WEBHOOK_PRIVATE_NETWORKS")}
    return home | ours | dict(environment)
