"""`bin/test`: the tiers of the suite, each a choice of pytest's options.

  bin/test           everything but the fault matrix, of which it runs a part
  bin/test fast      what takes no real broker and no killed process: for every change
  bin/test faults    the whole fault matrix

Further arguments go to pytest. Paths and -k choose tests as usual; -n 0 runs them in one process.
"""

import sys
from collections.abc import Mapping, Sequence

import pytest

TIERS: Mapping[str, Sequence[str]] = {
    "all": ("-m", "not faults"),
    "fast": ("-m", "not slow and not faults"),
    "faults": ("tests/faults",),
}

#: Most tests wait for a server or a clock, so more processes than cores are at work.
PROCESSES = "4"


def main(arguments: Sequence[str]) -> int:
    """Run a tier, the whole suite if none is named. Return pytest's exit code."""
    tier, rest = (arguments[0], arguments[1:]) if arguments and arguments[0] in TIERS else ("all", arguments)
    return int(pytest.main(["-n", PROCESSES, "--dist", "loadgroup", *TIERS[tier], *rest]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
