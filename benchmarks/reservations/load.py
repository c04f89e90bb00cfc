"""The load: reservations over HTTP, sent by wrk as fast as they are answered."""

import re
import secrets
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import rich_click as click

from domain.runtime.settings import ROOT

#: The length of one measurement.
SECONDS = 6

#: They make the requests that wrk sends: for units of items, and for time of calendars.
SCRIPT = "benchmarks/reservations/reserve.lua"
TIME_SCRIPT = "benchmarks/reservations/reserve_time.lua"


@dataclass(frozen=True)
class Load:
    """What wrk measured: answers a second, the median and the 99th percentile in milliseconds, answers not 2xx."""

    rate: float
    p50: float
    p99: float
    refused: int


class MissingProgram(click.ClickException):
    """Raised when a benchmark needs a program that is not installed."""

    exit_code = 2


def require_wrk() -> None:
    """Raises MissingProgram if wrk is not installed."""
    if shutil.which("wrk") is None:
        raise MissingProgram(
            "wrk is not installed, and these benchmarks use it to send requests."
            " On Debian: apt-get install wrk. Then run this again."
        )


def reserve(port: int, *, connections: int, items: int, first: int = 1, tokens: Sequence[str] = ()) -> Load:
    """Reserve units of that many items from that id on, and require that every request is answered with success.

    The requests bring these tokens in turn, if there are any.
    """
    load = send(port, connections=connections, items=items, first=first, TOKENS=" ".join(tokens))
    # Errors and refusals are fast, and would look like a good figure.
    assert load.refused == 0, f"{load.refused} answers were not 201"
    return load


def reserve_time(
    port: int, *, connections: int, calendars: int, first: int, start: datetime, as_bookings: bool = False
) -> Load:
    """Reserve one period after another from `start` on, of that many calendars from that id on. All must be free.

    `as_bookings` asks for them by the booking contract: the calendar that is the first one is that of `venue-1`.
    """
    variables = {"START": f"{start.timestamp():.0f}"} | ({"BOOKINGS": "1"} if as_bookings else {})
    load = send(port, connections=connections, items=calendars, first=first, script=TIME_SCRIPT, **variables)
    assert load.refused == 0, f"{load.refused} answers were not 201"
    return load


def send(port: int, *, connections: int, items: int, first: int = 1, script: str = SCRIPT, **more: str) -> Load:
    """Send reservations as fast as that many connections can, whatever is answered."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{SECONDS}s", "--latency", "-s", script]
    variables = more | {
        "ITEMS": str(items),
        "FIRST": str(first),
        "RUN": secrets.token_hex(4),
        "PATH": "/usr/local/bin:/usr/bin:/bin",
    }
    report = subprocess.run(
        [*command, f"http://127.0.0.1:{port}"], env=variables, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    rate = float(_find(r"Requests/sec:\s+([\d.]+)", report)[0])
    p50, p99 = (_milliseconds(report, percentile) for percentile in ("50", "99"))
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", report)
    return Load(rate, p50, p99, int(refused[1]) if refused else 0)


_UNITS = {"us": 0.001, "ms": 1.0, "s": 1_000.0}


def _milliseconds(report: str, percentile: str) -> float:
    value, unit = _find(rf"{percentile}%\s+([\d.]+)(us|ms|s)\b", report)
    return float(value) * _UNITS[unit]


def _find(pattern: str, report: str) -> tuple[str, ...]:
    found = re.search(pattern, report)
    if found is None:
        raise RuntimeError(f"The report of wrk has no {pattern}:\n{report}")
    return found.groups()
