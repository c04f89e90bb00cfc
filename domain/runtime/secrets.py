"""Secrets: variables that may be given as files instead, as many platforms hand secrets to processes."""

import os
from collections.abc import Mapping
from pathlib import Path

from domain.runtime.errors import ConfigurationError

#: What the name of the variable with the path of the file ends with.
SUFFIX = "_FILE"

#: The settings that may hold a password or a key.
SECRETS = (
    "DATABASE_URL",
    "DATABASE_DIRECT_URL",
    "REDIS_URL",
    "BROKER_URL",
    "CONFIRMATION_URL",
    "INVENTORY_URL",
    "PRICING_URL",
    "PAYMENT_URL",
    "PII_KEYS",
)


def from_files() -> Mapping[str, str]:
    """Return the settings that are in files, by their names. Raises ConfigurationError."""
    named = {name: read(name) for name in SECRETS}
    return {name: value for name, value in named.items() if value is not None}


def read(name: str) -> str | None:
    """Return what is in the file that the variable `<name>_FILE` names, None without one. Raises ConfigurationError.

    The newline at the end of a file is not a part of the secret.
    """
    path = os.environ.get(name + SUFFIX)
    if not path:
        return None
    if os.environ.get(name):
        raise ConfigurationError(f"{name}{SUFFIX}: {name} is set as well. Set one of them.")
    try:
        written = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise ConfigurationError(
            f"{name}{SUFFIX}: {path} can't be read: {reason}. This process needs a file with the secret there."
        ) from None
    if not written.strip():
        raise ConfigurationError(
            f"{name}{SUFFIX}: {path} is empty. Write the secret into it or, if there is to be none, do not set"
            f" {name}{SUFFIX}."
        )
    return written


def is_given(name: str) -> bool:
    """Return whether a variable is set, or names a file."""
    return name in os.environ or name + SUFFIX in os.environ
