"""HOLDFAST_HOME: the folder of one `bin/up` at a time, and the file by which commands find what it has started."""

import fcntl
import os
import shlex
from collections.abc import Mapping
from contextlib import ExitStack

from domain.runtime.errors import ConfigurationError
from domain.runtime.settings import HOME

#: The settings that lead to what was started. Every command reads them, unless the environment has others.
ENV_FILE = HOME / "env"

#: Whoever holds a lock on this file uses HOLDFAST_HOME. It contains the id of that process.
LOCK_FILE = HOME / "lock"


def lock_home(running: ExitStack) -> None:
    """Keep HOLDFAST_HOME for this process until the end. Raises ConfigurationError if another one uses it.

    Two of them would share one PostgreSQL and one Redis, and the first to end would stop both. The kernel releases the
    lock of a process that was killed: `lockf` locks for this process alone, `flock` for its children too.
    """
    HOME.mkdir(parents=True, exist_ok=True)
    file = running.enter_context(LOCK_FILE.open("a+"))
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = LOCK_FILE.read_text().strip()
        raise ConfigurationError(
            f"Another bin/up (process {holder}) uses {HOME}. Stop it, or set HOLDFAST_HOME to another folder."
        ) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    ENV_FILE.unlink(missing_ok=True)  # it may lead to servers of an earlier run


def write_settings(running: ExitStack, environment: Mapping[str, str]) -> None:
    """Let all commands find what was started, until the end."""
    ENV_FILE.touch(mode=0o600)  # there may be a password in it
    ENV_FILE.write_text("".join(f"{name}={shlex.quote(value)}\n" for name, value in environment.items()))
    running.callback(ENV_FILE.unlink, missing_ok=True)
