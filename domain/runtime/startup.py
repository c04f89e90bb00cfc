"""The start of a process: a wrong configuration ends it with a message, and nothing else does the printing."""

import sys
from collections.abc import Callable
from typing import NoReturn

from domain.runtime.errors import ConfigurationError

#: The exit code of a process whose configuration or options can't be used.
WRONG_CONFIGURATION = 2


def run(main: Callable[[], int | None]) -> NoReturn:
    """Run the main function of a process and exit with what it returns, or with 2 for a wrong configuration."""
    try:
        sys.exit(main() or 0)
    except ConfigurationError as error:
        sys.exit(report(error))


def report(error: ConfigurationError) -> int:
    """Print what is wrong with the configuration. Return the exit code."""
    print(f"Holdfast does not start: its configuration or an option can't be used.\n{error}", file=sys.stderr)
    print("docs/configuration.md describes each variable and each key of the routes file.", file=sys.stderr)
    return WRONG_CONFIGURATION
