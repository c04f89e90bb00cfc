"""What a test needs beside Python. Where it is missing, a laptop skips the test and CI fails it."""

import os

import pytest


def required(what: str, is_there: bool, install: str) -> None:
    """Skip the test unless `what` is there, or fail it if CI is set. `install` names Debian's package."""
    if is_there:
        return
    missing = f"{what} is missing, so this is not tested. Install it: apt-get install {install}"
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(missing)
