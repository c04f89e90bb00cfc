"""Reservations over gRPC: made, against those over HTTP; and streamed, against a server that does nothing else."""

import socket
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count

import psutil

from api.grpc.messages import timestamp_of
from api.grpc.proto import reservation_pb2 as proto
from api.grpc.server import SERVICE
from benchmarks.environment import Environment, wait_until
from benchmarks.measure import Measure, compare, median, resident_memory
from benchmarks.reservations import bare_grpc, grpc_load, load
from benchmarks.reservations.calendars import FIRST, FIRST_YEAR, YEARS, add_calendars, take
from benchmarks.reservations.reserving import APP, CONNECTIONS, ROUNDS

HTTP, GRPC, BARE = 8120, 8121, 8122

#: The calendars of each load: what they are called, how many there are, and the id of the first one.
LOADS = (("one calendar", 1, FIRST), ("1,000 calendars", 1_000, FIRST + 1))
CALENDARS = 1_001

QUARTER = timedelta(minutes=15)

BUDGET = 1.2


def grpc_reserving(environment: Environment) -> Iterator[Measure]:
    """Reservations of time over gRPC, against the same over HTTP, and against calls that do nothing."""
    environment.clear()
    add_calendars(environment, CALENDARS, capacity=1)
    rates: dict[tuple[str, int], list[float]] = defaultdict(list)
    years = (datetime(year, 1, 1, tzinfo=UTC) for year in range(FIRST_YEAR, 2200, YEARS))
    with ExitStack() as serving:
        serving.enter_context(environment.serving(APP, HTTP))
        server = serving.enter_context(_serving_grpc(environment))
        serving.enter_context(_serving_bare(environment))
        for _ in range(ROUNDS):
            for what, number, first in LOADS:
                over_http = load.reserve_time(
                    HTTP, connections=CONNECTIONS, calendars=number, first=first, start=next(years)
                )
                rates[what, HTTP].append(over_http.rate)
                rates[what, GRPC].append(_reserve(next(years), number, first))
            rates["", BARE].append(_send(BARE, bare_grpc.EMPTY, bytes))
        memory = server.memory_info().rss
    empty = median(rates["", BARE])
    for what, _, _ in LOADS:
        ours, over_http_rate = median(rates[what, GRPC]), median(rates[what, HTTP])
        named = f"reservations of time/s over gRPC, {what} of capacity 1, {CONNECTIONS} calls at a time"
        yield compare(named, ours, over_http_rate, named="over HTTP", at_least=BUDGET)
        yield _beside(named, ours, empty, "calls of an empty method of grpcio")
    yield resident_memory("the gRPC server", memory)


def _beside(what: str, ours: float, baseline: float, named: str) -> Measure:
    """Report a rate beside what grpcio itself reaches."""
    return Measure(
        what=what,
        measured=f"{ours:,.0f}",
        baseline=f"{named} {baseline:,.0f}: {ours / baseline:.0%}",
        numbers={"measured": ours, "baseline": baseline, "ratio": ours / baseline},
    )


def _reserve(start: datetime, calendars: int, first: int) -> float:
    """Reserve one quarter of an hour after another from `start` on, as `load.reserve_time` does."""
    numbers = count()

    def message() -> bytes:
        number = next(numbers)
        begin = start + number // calendars * QUARTER
        wanted = proto.Reservation(
            user_id="guest",
            resource_id=f"calendar-1-{first - FIRST + 1 + number * 7919 % calendars}",
            start=timestamp_of(begin),
            end=timestamp_of(begin + QUARTER),
        )
        return proto.ReserveRequest(reservation=wanted).SerializeToString()

    return _send(GRPC, f"/{SERVICE}/reserve", message)


def _send(port: int, method: str, message: Callable[[], bytes]) -> float:
    sent = grpc_load.send(port, method, message, connections=CONNECTIONS)
    # Errors and refusals are fast, and would look like a good figure.
    assert sent.refused == 0, f"{sent.refused} calls failed"
    return sent.rate


#: The rows of the stream, and those of the constant messages that it is compared with.
ROWS, CONSTANT_ROWS = 1_000_000, 100_000

#: In the first tenth of a stream the server reaches the memory that it keeps.
MEMORY_BUDGET = 1.1

BUDGET_ROWS = 50_000


def grpc_querying(environment: Environment) -> Iterator[Measure]:
    """A stream of a million reservations over gRPC, against messages that are always the same."""
    environment.clear()
    add_calendars(environment, 1, capacity=1)
    take(environment, FIRST, ROWS, 1, every=1)
    with _serving_grpc(environment) as server, _serving_bare(environment):
        constant = [_constant_rate()]
        rate, first_tenth, last = _query(server)
        constant.append(_constant_rate())
    what = f"rows/s of Query over {ROWS / 1e6:g} million reservations"
    yield Measure(
        what=what,
        measured=f"{rate:,.0f}",
        budget=f"≥ {BUDGET_ROWS:,}",
        met=rate >= BUDGET_ROWS,
        numbers={"measured": rate, "budget": BUDGET_ROWS},
    )
    yield _beside(what, rate, median(constant), "constant messages of grpcio")
    yield Measure(
        what=f"resident memory of the gRPC server, after {ROWS / 1e6:g} million rows of a stream",
        measured=f"{last / 2**20:.0f} MB",
        baseline=f"after a tenth of them {first_tenth / 2**20:.0f} MB: {last / first_tenth:.0%}",
        budget=f"≤ {MEMORY_BUDGET:.0%}",
        met=last <= MEMORY_BUDGET * first_tenth,
        numbers={"measured": last / 2**20, "baseline": first_tenth / 2**20, "budget": MEMORY_BUDGET},
    )


def _query(server: psutil.Process) -> tuple[float, int, int]:
    """Stream all reservations. Return rows/s, and the server's memory in bytes after a tenth and after all of them."""
    begun, rows, first_tenth = time.monotonic(), 0, 0
    request = proto.QueryRequest().SerializeToString()
    for rows in grpc_load.stream(GRPC, f"/{SERVICE}/Query", request):
        if not first_tenth and rows >= ROWS / 10:
            first_tenth = server.memory_info().rss
    assert rows == ROWS, f"{rows} rows came"
    return rows / (time.monotonic() - begun), first_tenth, server.memory_info().rss


def _constant_rate() -> float:
    begun = time.monotonic()
    *_, rows = grpc_load.stream(BARE, bare_grpc.STREAM, str(CONSTANT_ROWS).encode())
    assert rows == CONSTANT_ROWS, f"{rows} messages came"
    return rows / (time.monotonic() - begun)


@contextmanager
def _serving_grpc(environment: Environment) -> Iterator[psutil.Process]:
    with environment.running("bin/grpc", GRPC_PORT=str(GRPC), GRPC_METRICS_PORT="0") as process:
        wait_until(lambda: _listens(GRPC))
        yield psutil.Process(process.pid)


@contextmanager
def _serving_bare(environment: Environment) -> Iterator[None]:
    with environment.running(sys.executable, "-m", "benchmarks.reservations.bare_grpc", str(BARE)):
        wait_until(lambda: _listens(BARE))
        yield


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
