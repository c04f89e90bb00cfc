"""`bin/test`: the tiers of the suite, each a choice of pytest's options.

  bin/test           everything but the fault matrix, of which it runs a part
  bin/test fast      what takes no real broker and no killed process: for every change
  bin/test faults    the whole fault matrix, and every guard taken away

Further arguments go to pytest. Paths and -k choose tests as usual; -n 0 runs them in one process.

A test that compares a time with a limit is marked `timed`. If only such tests fail beside others, they are run again,
one after another on a machine that is free for them, and that result counts.
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

#: The tests that failed in the run before.
FAILED = ("--last-failed", "--last-failed-no-failures", "none")

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
    if code == pytest.ExitCode.TESTS_FAILED and _pytest(*FAILED, "-m", "not timed", "--collect-only") == NONE:
        print("Only tests that measure times failed. They run again, one after another.", flush=True)
        return _pytest(*FAILED)
    return code


def _pytest(*arguments: str) -> int:
    return subprocess.call([sys.executable, "-m", "pytest", *arguments])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
