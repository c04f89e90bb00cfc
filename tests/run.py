"""`bin/test`: the tiers of the suite, each a choice of pytest's options.

  bin/test           everything but the fault matrix, of which it runs a part
  bin/test fast      what takes no real broker and no killed process: for every change
  bin/test faults    the whole fault matrix

Further arguments go to pytest. Paths and -k choose tests as usual; -n 0 runs them in one process.
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


def main(arguments: Sequence[str]) -> int:
    """Run a tier, the whole suite if none is named. Return pytest's exit code, of the first run that failed."""
    tier, rest = (arguments[0], arguments[1:]) if arguments and arguments[0] in TIERS else ("all", arguments)
    # Without it, each of the many processes would compile all modules anew.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    codes = [subprocess.call([sys.executable, "-m", "pytest", *options, *rest]) for options in TIERS[tier]]
    # The tests that were chosen may all be in one run.
    chosen = [code for code in codes if code != pytest.ExitCode.NO_TESTS_COLLECTED] or codes
    return next((code for code in chosen if code), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
