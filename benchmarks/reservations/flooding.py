"""A sender with few requests, beside one that floods: both have tokens, and the flood has hundreds of connections."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx

from benchmarks.environment import Environment
from benchmarks.measure import Measure, compare_times
from benchmarks.reservations import load
from benchmarks.reservations.guarded import Senders
from benchmarks.reservations.reserving import APP

ROUNDS = 5

CONNECTIONS = 200

#: The requests a second of the one who does not flood, for as long as wrk floods.
RATE = 20.0

GUARDED, EMPTY = 8110, 8111

EMPTY_APP = "benchmarks.reservations.lean_textbook:create_empty_app"

BUDGET = 1.5

#: What the one sends, by its name in the table.
REQUESTS = {
    "a reservation": ("POST", "/reservations", {"item_id": 2, "quantity": 1}),
    "a list": ("GET", "/reservations?limit=20", None),
}


def flooding(environment: Environment) -> Iterator[Measure]:
    """Latency of a sender with 20 requests a second beside one that floods with 200 connections, against alone."""
    environment.clear()
    senders = Senders(Path(environment.variables["HOLDFAST_HOME"]))
    quiet, loud = senders.token("quiet", "staff"), senders.token("loud", "staff")
    took: dict[tuple[str, str], list[float]] = {}
    with ExitStack() as stack:
        stack.enter_context(environment.serving(APP, GUARDED, **senders.settings))
        stack.enter_context(environment.serving(EMPTY_APP, EMPTY))
        for _ in range(ROUNDS):
            for name in REQUESTS:
                for beside, port in (("alone", None), ("a flood elsewhere", EMPTY), ("a flood", GUARDED)):
                    took.setdefault((name, beside), []).extend(_latencies(name, quiet, port, loud))
    for name in REQUESTS:
        what = f"{name} of a sender with {RATE:g}/s, {{}} beside one that floods with {CONNECTIONS} connections"
        at = {beside: sorted(took[name, beside]) for beside in ("alone", "a flood elsewhere", "a flood")}
        for percent in (50, 99):
            alone, elsewhere, flood = (times[len(times) * percent // 100] for times in at.values())
            yield compare_times(
                what.format(f"p{percent}"),
                flood,
                alone,
                named=f"beside a flood of an empty endpoint {elsewhere:.1f} ms, alone",
                at_most=BUDGET,
            )


def _latencies(name: str, quiet: str, port: int | None, loud: str) -> list[float]:
    """Return how long the requests of the one took, in milliseconds, while the other one floods this port, or none."""
    with ThreadPoolExecutor(1) as beside:
        if port is not None:
            beside.submit(load.send, port, connections=CONNECTIONS, items=1, TOKENS=loud)
            # wrk connects, and the first requests verify a token.
            time.sleep(1)
        return _ask(name, quiet, load.SECONDS - 2)


def _ask(name: str, token: str, seconds: float) -> list[float]:
    method, path, body = REQUESTS[name]
    took: list[float] = []
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=f"http://127.0.0.1:{GUARDED}", headers=headers, timeout=60) as client:
        client.request(method, path, json=body).raise_for_status()
        begun = time.perf_counter()
        for number in range(int(seconds * RATE)):
            time.sleep(max(0.0, begun + number / RATE - time.perf_counter()))
            sent = time.perf_counter()
            client.request(method, path, json=body).raise_for_status()
            took.append((time.perf_counter() - sent) * 1_000)
    return took
