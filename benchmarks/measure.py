"""A measured figure beside its baseline and its budget."""

import re
import shutil
import statistics
import subprocess
import sys
from dataclasses import dataclass

from domain.runtime.settings import ROOT


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One line of the table. `met` is None for a figure that is only reported."""

    what: str
    figure: str
    baseline: str = ""
    budget: str = ""
    met: bool | None = None


@dataclass(frozen=True)
class Load:
    """What wrk saw: answers a second, the median and the 99th percentile in milliseconds, answers that were not 2xx."""

    rate: float
    p50: float
    p99: float
    refused: int


def insist_on_wrk() -> None:
    if shutil.which("wrk") is None:
        sys.exit(
            "The load comes from wrk, which is not installed. On Debian: apt-get install wrk. Then run this again."
        )


_UNITS = {"us": 0.001, "ms": 1.0, "s": 1_000.0}


def load(port: int, *, connections: int, seconds: int, items: int, run: str) -> Load:
    """Reserve over HTTP as fast as that many connections can."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", "benchmarks/reserve.lua"]
    environment = {"ITEMS": str(items), "RUN": run, "PATH": "/usr/local/bin:/usr/bin:/bin"}
    said = subprocess.run(
        [*command, f"http://127.0.0.1:{port}"], env=environment, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    rate = float(_find(r"Requests/sec:\s+([\d.]+)", said)[0])
    p50, p99 = (_milliseconds(said, percentile) for percentile in ("50", "99"))
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    return Load(rate, p50, p99, int(refused[1]) if refused else 0)


def _milliseconds(said: str, percentile: str) -> float:
    value, unit = _find(rf"{percentile}%\s+([\d.]+)(us|ms|s)\b", said)
    return float(value) * _UNITS[unit]


def _find(pattern: str, said: str) -> tuple[str, ...]:
    found = re.search(pattern, said)
    if found is None:
        raise RuntimeError(f"wrk said something unexpected:\n{said}")
    return found.groups()


def median(figures: list[float]) -> float:
    return statistics.median(figures)
