"""Takes each guard away in turn, and shows that the tests notice.

`bin/python -m tests.faults.mutants [GUARD…]`, where GUARD is one of fence, order, skip-locked, feed, event-id,
bookings, calendars and weather; all of them if none is named. All tests of the guard run, until one fails: some five
seconds a mutant. It prints a table, and exits 1 if a missing guard is not noticed. `bin/test` runs each mutant with one
test only (`test_mutants`).
"""

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from tests.faults.guards import MUTANTS, SUITES
from tests.faults.mutant import Mutant
from tests.faults.mutation import FAILED, PASSED, ROOT, Verdict, verdict_on


def main() -> int:
    """Run the mutants of the guards that are named. Return 1 if one is not noticed."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.mutants", description=__doc__.splitlines()[0])
    parser.add_argument("guards", nargs="*", metavar="GUARD", help=f"{', '.join(SUITES)}; all if none is named")
    guards = parser.parse_args().guards or list(SUITES)
    if unknown := set(guards) - SUITES.keys():
        parser.error(f"there is no guard {min(unknown)!r}; the guards are {', '.join(SUITES)}")
    mutants = [mutant for mutant in MUTANTS if mutant.guard in guards]
    for mutant in mutants:
        mutant.mutate((ROOT / mutant.path).read_text())
    _check_that_the_tests_pass(guards)
    verdicts = [(mutant, _verdict_on(mutant)) for mutant in mutants]
    Console().print(_table(verdicts))
    return 0 if all(verdict.status == FAILED for _, verdict in verdicts) else 1


def _check_that_the_tests_pass(guards: Sequence[str]) -> None:
    """Tests that fail anyway show nothing."""
    verdict = verdict_on(sorted({path for guard in guards for path in SUITES[guard]}))
    if verdict.status != PASSED:
        sys.exit(f"The tests fail with all guards in place, so nothing can be shown.\n{verdict.output}")


def _verdict_on(mutant: Mutant) -> Verdict:
    verdict = verdict_on(SUITES[mutant.guard], mutant)
    if verdict.status not in (PASSED, FAILED):
        sys.exit(f"The mutant {mutant.title!r} can't be run, so it shows nothing.\n{verdict.output}")
    print(f"{mutant.guard}: {mutant.title}: {_result(verdict)} {verdict.noticed_by}", file=sys.stderr, flush=True)
    return verdict


def _result(verdict: Verdict) -> str:
    return "noticed" if verdict.status == FAILED else "NOT NOTICED"


def _table(verdicts: Sequence[tuple[Mutant, Verdict]]) -> Table:
    table = Table("guard", "taken away", "where", "result", "noticed first by")
    for mutant, verdict in verdicts:
        noticed_by = verdict.noticed_by.rpartition("/")[2].replace(".py::", ": ").replace("_", " ")
        table.add_row(mutant.guard, mutant.title, mutant.path, _result(verdict), noticed_by)
    return table


if __name__ == "__main__":
    sys.exit(main())
