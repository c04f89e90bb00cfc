"""HOLDFAST_HOME: the folder of one `bin/up` at a time, and the file by which commands find what it has started."""

import fcntl
import os
import shlex
from collections.abc import Mapping
from contextlib import ExitStack

from domain.privacy.keyring import new_key
from domain.runtime.errors import ConfigurationError
from domain.runtime.settings import HOME

#: The settings that lead to what was started. Every command reads them, unless the environment has others.
ENV_FILE = HOME / "env"

#: Whoever holds a lock on this file uses HOLDFAST_HOME. It contains the id of that process.
LOCK_FILE = HOME / "lock"

#: The settings that lead to the queues of slots.
QUEUES = ("SQS_BOOKING_REQUEST_QUEUE_URL", "SQS_BOOKING_CONFIRMATION_QUEUE_URL")

#: The keys of guests' personal data, which are kept as long as the database is.
KEYS_FILE = HOME / "pii-keys"


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


def slot_queues() -> dict[str, str]:
    """Return the settings that lead to the queues of slots, as far as the environment has them."""
    return {name: url for name in QUEUES if (url := os.environ.get(name))}


def personal_data_keys() -> dict[str, str]:
    """Return the setting that leads to the keys of personal data, which are made at the first start.

    There is none if the environment has keys. The keys outlive a run, as the data does that they encrypt.
    """
    if os.environ.get("PII_KEYS"):
        return {}
    if given := os.environ.get("PII_KEYS_FILE"):
        return {"PII_KEYS_FILE": given}
    if not KEYS_FILE.exists():
        made = KEYS_FILE.with_suffix(".new")
        made.touch(mode=0o600)
        made.write_text(f"{new_key('demo-1')}\n")
        made.rename(KEYS_FILE)
    return {"PII_KEYS_FILE": str(KEYS_FILE)}
