"""`bin/bench`: measure the budgets and print them as a table, in Markdown."""

import argparse
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping

from benchmarks.draining import draining, leaving
from benchmarks.environment import Stage, stage
from benchmarks.expiring import expiring
from benchmarks.failing import failing
from benchmarks.history import history
from benchmarks.measure import Measure, insist_on_wrk
from benchmarks.recovering import recovering
from benchmarks.reserving import reserving, selling_out
from benchmarks.rivals import rivals
from benchmarks.scaling import idling, scaling
from benchmarks.sinks import sinks
from benchmarks.snapshot import snapshot
from benchmarks.waiting import waiting

BENCHMARKS: Mapping[str, Callable[[Stage], Iterator[Measure]]] = {
    "reserving": reserving,
    "selling-out": selling_out,
    "draining": draining,
    "leaving": leaving,
    "rivals": rivals,
    "waiting": waiting,
    "snapshot": snapshot,
    "failing": failing,
    "scaling": scaling,
    "idling": idling,
    "recovering": recovering,
    "expiring": expiring,
    "history": history,
    "sinks": sinks,
}


def main() -> int:
    """Return 0 if every budget that was measured is met."""
    parser = argparse.ArgumentParser(prog="bin/bench", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"some of: {', '.join(BENCHMARKS)}; all if none is given"
    )
    names = parser.parse_args().names or list(BENCHMARKS)
    unknown = set(names) - BENCHMARKS.keys()
    if unknown:
        parser.error(f"there is no benchmark {min(unknown)!r}; there are {', '.join(BENCHMARKS)}")
    insist_on_wrk()
    with stage() as ready:
        print(
            f"\n{_machine(ready)}\n\n| what | measured | baseline, same run | budget | |\n|---|---|---|---|---|",
            flush=True,
        )
        measures = [_shown(measure) for name in names for measure in BENCHMARKS[name](ready)]
    return 1 if any(measure.met is False for measure in measures) else 0


def _shown(measure: Measure) -> Measure:
    verdict = {True: "met", False: "**not met**", None: ""}[measure.met]
    print(f"| {measure.what} | {measure.figure} | {measure.baseline} | {measure.budget} | {verdict} |", flush=True)
    return measure


def _machine(ready: Stage) -> str:
    with ready.connect() as connection:
        version = connection.execute("SHOW server_version").fetchone()
    gibibytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} cores and {gibibytes:.0f} GiB, shared by the load, the servers and PostgreSQL"
        f" {version[0] if version else ''} with its defaults; Python {platform.python_version()}."
    )


if __name__ == "__main__":
    sys.exit(main())
