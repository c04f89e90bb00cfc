"""One line of the table: a figure, its baseline from the same run, and its budget."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

#: What one process may occupy: an API process under load, and a worker process under load.
MEMORY_BUDGET_MEGABYTES = 150


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One line of the table. `met` is None for a figure that is only reported.

    `measured`, `baseline` and `budget` are text for readers. `numbers` has the same figures for programs.
    """

    what: str
    measured: str
    baseline: str = ""
    budget: str = ""
    met: bool | None = None
    numbers: Mapping[str, float] = field(default_factory=dict)


def compare(
    what: str, ours: float, baseline: float, *, named: str, at_least: float, ratio: float | None = None
) -> Measure:
    """Compare two rates. Ours must be at least `at_least` times the baseline; `named` says what the baseline is.

    `ratio` is given where it is not simply the quotient of the two.
    """
    ratio = ours / baseline if ratio is None else ratio
    in_percent = at_least <= 1
    return Measure(
        what=what,
        measured=f"{ours:,.0f}",
        baseline=f"{named} {baseline:,.0f}: " + (f"{ratio:.0%}" if in_percent else f"{ratio:.1f} ×"),
        budget=f"≥ {at_least:.0%}" if in_percent else f"≥ {at_least:g} ×",
        met=ratio >= at_least,
        numbers={"measured": ours, "baseline": baseline, "ratio": ratio, "budget": at_least},
    )


def compare_times(what: str, ours: float, baseline: float, *, named: str, at_most: float) -> Measure:
    """Compare two times in milliseconds. Ours may be `at_most` times the baseline; `named` says what that is."""
    ratio = ours / baseline
    return Measure(
        what=what,
        measured=f"{ours:.1f} ms",
        baseline=f"{named} {baseline:.1f} ms: {ratio:.0%}",
        budget=f"≤ {at_most:.0%}",
        met=ratio <= at_most,
        numbers={"measured": ours, "baseline": baseline, "ratio": ratio, "budget": at_most},
    )


def resident_memory(of: str, size: int) -> Measure:
    """Compare the resident memory of a process, in bytes, with its budget."""
    megabytes = size / 2**20
    return Measure(
        what=f"resident memory of {of}, after that load",
        measured=f"{megabytes:.0f} MB",
        budget=f"≤ {MEMORY_BUDGET_MEGABYTES} MB",
        met=megabytes <= MEMORY_BUDGET_MEGABYTES,
        numbers={"measured": megabytes, "budget": MEMORY_BUDGET_MEGABYTES},
    )


def median(figures: Sequence[float]) -> float:
    return statistics.median(figures)
