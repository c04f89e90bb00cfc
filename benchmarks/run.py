"""`bin/bench`: measure the budgets, each against its baseline, and print a table."""

import os
import platform
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import rich_click as click

from benchmarks.environment import Environment, environment
from benchmarks.history import history
from benchmarks.measure import Measure
from benchmarks.outbox.busy import busy
from benchmarks.outbox.draining import draining
from benchmarks.outbox.failing import failing
from benchmarks.outbox.hanging import hanging
from benchmarks.outbox.latency import latency
from benchmarks.outbox.recovering import recovering
from benchmarks.outbox.scaling import idling, scaling
from benchmarks.outbox.shedding import shedding
from benchmarks.outbox.sinks import sinks
from benchmarks.outbox.snapshot import snapshot
from benchmarks.outbox.waiting import waiting
from benchmarks.reservations.availability import availability
from benchmarks.reservations.booking import booking, booking_outage, booking_steps
from benchmarks.reservations.calendars import calendars
from benchmarks.reservations.expiring import expiring
from benchmarks.reservations.flooding import flooding
from benchmarks.reservations.guarded import guarded
from benchmarks.reservations.hotel import BOOKINGS, hotel, require_bookings
from benchmarks.reservations.listing import listing
from benchmarks.reservations.load import require_wrk
from benchmarks.reservations.over_grpc import grpc_querying, grpc_reserving
from benchmarks.reservations.reserving import locked_item, reserving, selling_out
from benchmarks.reservations.rotating import rotating
from benchmarks.rivals.draining import rivals
from domain.runtime import logs, startup
from worker.commands import command_line, options
from worker.commands.command_line import DONE, TROUBLE, Command
from worker.commands.output import print_json, progress

Benchmark = Callable[[Environment], Iterator[Measure]]

BENCHMARKS: Mapping[str, Benchmark] = {
    "reserving": reserving,
    "selling-out": selling_out,
    "locked-item": locked_item,
    "guarded": guarded,
    "flooding": flooding,
    "draining": draining,
    "latency": latency,
    "busy": busy,
    "rivals": rivals,
    "waiting": waiting,
    "snapshot": snapshot,
    "failing": failing,
    "hanging": hanging,
    "shedding": shedding,
    "scaling": scaling,
    "idling": idling,
    "recovering": recovering,
    "expiring": expiring,
    "rotating": rotating,
    "listing": listing,
    "calendars": calendars,
    "availability": availability,
    "booking": booking,
    "booking-steps": booking_steps,
    "booking-outage": booking_outage,
    "grpc-reserving": grpc_reserving,
    "grpc-querying": grpc_querying,
    "hotel": hotel,
    "history": history,
    "sinks": sinks,
}

#: The benchmarks whose load comes from wrk.
WITH_WRK = frozenset(
    {
        "reserving",
        "selling-out",
        "locked-item",
        "guarded",
        "flooding",
        "calendars",
        "booking",
        "grpc-reserving",
        "history",
    }
)

MEMBERS = (
    "machine, and measures, a list of benchmark, what, measured, baseline, budget, met (null without a budget) and"
    " numbers (the same figures without their formats)."
)

_BENCHMARKS = "\n".join(f"  {name:14}  {benchmark.__doc__}" for name, benchmark in BENCHMARKS.items())

HELP = f"""Measure the budgets, and print them as a table in Markdown.

A figure is judged by its ratio to a baseline that is measured in the same run, or is only reported: figures of two
runs, or of two machines, can't be compared. A PostgreSQL and a Redis are started for the run. A benchmark takes
minutes, and all of them take hours. These are the benchmarks:

\b
{_BENCHMARKS}
"""


@click.command(
    "bin/bench",
    cls=Command,
    help=HELP,
    examples=["bin/bench", "bin/bench draining expiring", "bin/bench draining --json"],
    exit_codes={
        0: "all measured budgets are met",
        1: "a budget is not met, or a benchmark failed",
        2: "wrong usage, or a program is missing; nothing was measured",
    },
)
@click.argument(
    "names", nargs=-1, metavar="[NAME]...", type=click.Choice(list(BENCHMARKS)), help="The benchmarks to run, or all."
)
@click.option(
    "--hotel-bookings",
    type=click.Path(path_type=Path),
    metavar="FILE",
    default=BOOKINGS,
    help="The whole file of bookings that the benchmark `hotel` replays (.csv.gz).",
)
@options.as_json(MEMBERS)
def main(names: Sequence[str], hotel_bookings: Path, as_json: bool) -> int:
    names = names or list(BENCHMARKS)
    # As Ctrl-C: the blocks that have started processes stop them.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if WITH_WRK & set(names):
        require_wrk()
    if "hotel" in names:
        require_bookings(hotel_bookings)
    logs.configure("ERROR")
    with environment() as ready:
        machine = _machine(ready)
        if not as_json:
            _print_head(machine)
        measured = []
        for name, measure in _measures(ready, names, {**BENCHMARKS, "hotel": partial(hotel, path=hotel_bookings)}):
            measured.append({"benchmark": name, **asdict(measure)})
            if not as_json:
                _print_line(measure)
    if as_json:
        print_json(machine=machine, measures=measured)
    return TROUBLE if any(one["met"] is False for one in measured) else DONE


def _measures(
    ready: Environment, names: Sequence[str], benchmarks: Mapping[str, Benchmark]
) -> Iterator[tuple[str, Measure]]:
    """Run the benchmarks one after the other. On a terminal, standard error shows which one is running."""
    for name in names:
        measures = benchmarks[name](ready)
        while True:
            # A line of the table is printed outside this block, which would take it to standard error.
            with progress(f"Measuring {name}"):
                measure = next(measures, None)
            if measure is None:
                break
            yield name, measure


def _machine(ready: Environment) -> Mapping[str, str | int | float]:
    with ready.connect() as connection:
        version = connection.execute("SHOW server_version").fetchone()
    return {
        "cores": os.cpu_count() or 0,
        "memory_gibibytes": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "postgresql": str(version[0]) if version else "",
        "python": platform.python_version(),
    }


def _print_head(machine: Mapping[str, str | int | float]) -> None:
    print(
        f"\n{machine['cores']} cores and {machine['memory_gibibytes']:.0f} GiB, shared by the load, the servers and"
        f" PostgreSQL {machine['postgresql']} with its defaults; Python {machine['python']}."
        "\n\n| what | measured | baseline, same run | budget | |\n|---|---|---|---|---|",
        flush=True,
    )


def _print_line(measure: Measure) -> None:
    verdict = {True: "met", False: "**not met**", None: ""}[measure.met]
    print(f"| {measure.what} | {measure.measured} | {measure.baseline} | {measure.budget} | {verdict} |", flush=True)


if __name__ == "__main__":
    startup.run(partial(command_line.run, main))
