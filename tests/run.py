"""`bin/test`: the tiers of the suite, each a choice of pytest's options.

  bin/test           everything but the fault matrix, of which it runs a part
  bin/test fast      what takes no real broker and no killed process: for every change
  bin/test faults    the whole fault matrix, and every guard taken away

Further arguments go to pytest. Paths and -k choose tests as usual; -n 0 runs them in one process.

If a few tests fail beside others, they are run again, one after another on a machine that is free for them, and that
result counts. A test that compares a time with a limit is marked `timed`: of those, any number is run again.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

import pytest

#: Many tests wait for a server or a clock, so more processes than cores are at work. The quick ones seldom wait.
PARALLEL = ("-n", "5", "--dist", "loadgroup")
QUICK = ("-n", "3", "--dist", "loadgroup")

#: The runs of each tier. What compares rates runs after all else, because tests beside it would change them.
TIERS: Mapping[str, Sequence[Sequence[str]]] = {
    "all": ((*PARALLEL, "-m", "not faults and not alone"), ("-m", "alone")),
    "fast": ((*QUICK, "-m", "not slow and not faults"),),
    "faults": ((*PARALLEL, "tests/faults"),),
}

#: So many tests that are not `timed` may fail, and are run again. More are a fault that needs no second look.
FEW = 20

AGAIN = "Some tests failed. They are run again, one after another: what fails twice is a failure."
UNSTABLE = (
    "The tests that failed beside others passed alone. Nothing stops you from landing. If one of these fails often, it,"
    " or what it tests, does not stand a busy machine: mend that."
)

#: The tests that failed in the run before.
FAILED = ("--last-failed", "--last-failed-no-failures", "none")

PYTEST = (sys.executable, "-m", "pytest")
NONE = pytest.ExitCode.NO_TESTS_COLLECTED


def main(arguments: Sequence[str]) -> int:
    """Run a tier, the whole suite if none is named. Return pytest's exit code, of the first run that failed."""
    tier, rest = (arguments[0], arguments[1:]) if arguments and arguments[0] in TIERS else ("all", arguments)
    # Without it, each of the many processes would compile all modules anew.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    codes = [_run(*options, *rest) for options in TIERS[tier]]
    # The tests that were chosen may all be in one run.
    chosen = [code for code in codes if code != NONE] or codes
    return next((code for code in chosen if code), 0)


def _run(*arguments: str) -> int:
    asks_for_failed = {"--lf", "--last-failed", "--ff", "--failed-first"} & {*arguments}
    code = _pytest(*arguments, *(() if asks_for_failed else ("--cache-clear",)))
    if code == pytest.ExitCode.TESTS_FAILED and _not_timed_of_the_failed() <= FEW:
        print(AGAIN, flush=True)
        code = _pytest(*FAILED)
        if code == pytest.ExitCode.OK:
            print(UNSTABLE, flush=True)
    return code


def _not_timed_of_the_failed() -> int:
    """Return how many of the tests that failed in the last run are not `timed`."""
    command = [*PYTEST, *FAILED, "-m", "not timed", "--collect-only"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return sum("::" in line for line in listed.splitlines())


def _pytest(*arguments: str) -> int:
    return subprocess.call([*PYTEST, *arguments])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
