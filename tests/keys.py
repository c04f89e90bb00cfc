"""The keys of bin/, turned as cron does: from another directory, with a bare PATH and little else."""

import os
import subprocess
from collections.abc import Mapping
from typing import IO

from domain.settings import HOME, ROOT

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


def turning(key: str, *, stderr: IO[bytes] | int | None = None, **environment: str) -> subprocess.Popen[bytes]:
    """Turn a key and do not wait."""
    return subprocess.Popen([ROOT / "bin" / key], cwd="/", env=bare(environment), stdout=subprocess.PIPE, stderr=stderr)


def bare(environment: Mapping[str, str]) -> dict[str, str]:
    """All that a key finds in its environment."""
    home = {"PATH": "/usr/bin:/bin", "HOLDFAST_HOME": str(HOME)}
    ours = {name: os.environ[name] for name in ("DATABASE_URL", "WEBHOOK_PRIVATE_NETWORKS")}
    return home | ours | dict(environment)
