"""Reservations over HTTP: ours and the baselines', measured in turn."""

from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import psutil

from benchmarks.environment import ITEMS, Environment
from benchmarks.measure import Measure, compare, median, resident_memory
from benchmarks.reservations import load
from benchmarks.reservations.load import Load

#: Ours and the textbook's are measured this many times, in turn, so that a noisy moment affects both.
ROUNDS = 3

CONNECTIONS = 64

OURS, ORM, LEAN, EMPTY = 8100, 8101, 8102, 8103

#: The baselines: two textbooks, and an endpoint that does nothing.
BASELINES = {
    ORM: "benchmarks.reservations.textbook:create_app",
    LEAN: "benchmarks.reservations.lean_textbook:create_app",
    EMPTY: "benchmarks.reservations.lean_textbook:create_empty_app",
}

#: The product, as `bin/api` serves it.
APP = "api.main:load_app"

#: What is measured: the number of connections, and the number of items that they reserve.
LOADS = {"hot": (CONNECTIONS, 1), "cold": (CONNECTIONS, ITEMS), "lone": (1, 1)}


def reserving(environment: Environment) -> Iterator[Measure]:
    """Reservations over HTTP, against two textbooks and an empty endpoint: a hot item, 10,000 items, a lone client."""
    environment.clear()
    loads: dict[tuple[str, int], list[Load]] = defaultdict(list)
    with ExitStack() as stack:
        process = stack.enter_context(environment.serving(APP, OURS))
        for port, app in BASELINES.items():
            stack.enter_context(environment.serving(app, port))
        for _ in range(ROUNDS):
            for port in (*BASELINES, OURS):
                for name, (connections, items) in LOADS.items():
                    loads[name, port].append(load.reserve(port, connections=connections, items=items))
        memory = max(child.memory_info().rss for child in psutil.Process(process.pid).children(recursive=True))
    yield from _rates(loads)
    yield _lone(loads)
    yield resident_memory("the api", memory)


#: By load: the part of the rate of each baseline that is the budget.
BUDGETS = {
    ("hot", "one hot item"): (("empty endpoint", EMPTY, 0.45), ("lean textbook", LEAN, 12), ("ORM textbook", ORM, 15)),
    ("cold", "10,000 items"): (("lean textbook", LEAN, 8),),
}


def _rates(loads: dict[tuple[str, int], list[Load]]) -> Iterator[Measure]:
    rate = {key: median([one.rate for one in several]) for key, several in loads.items()}
    for (load_name, items), baselines in BUDGETS.items():
        for named, port, budget in baselines:
            yield compare(
                f"reservations/s over HTTP, {items}, {CONNECTIONS} connections",
                rate[load_name, OURS],
                rate[load_name, port],
                named=named,
                at_least=budget,
            )
    yield compare(
        "reservations/s over HTTP, hot ÷ cold", rate["hot", OURS], rate["cold", OURS], named="cold", at_least=0.9
    )


def _lone(loads: dict[tuple[str, int], list[Load]]) -> Measure:
    ours, textbook = (median([one.p50 for one in loads["lone", port]]) for port in (OURS, LEAN))
    return Measure(
        what="a lone request, p50",
        measured=f"{ours:.1f} ms",
        baseline=f"lean textbook {textbook:.1f} ms: {ours / textbook:.0%}",
        budget="≤ 100%",
        met=ours <= textbook,
        numbers={"measured": ours, "baseline": textbook, "ratio": ours / textbook, "budget": 1},
    )


def locked_item(environment: Environment) -> Iterator[Measure]:
    """Reservations of 9,999 items while another session has locked one, which has clients too, against none locked."""
    environment.clear()
    free, locked = [], []
    with environment.serving(APP, OURS), environment.connect() as connection:
        for _ in range(ROUNDS):
            free.append(_beside_clients_of_the_first_item())
            with connection.transaction():
                connection.execute("SELECT FROM items WHERE id = 1 FOR UPDATE")
                locked.append(_beside_clients_of_the_first_item())
    yield compare(
        f"reservations/s of other items while one is locked, {CONNECTIONS} connections",
        median(locked),
        median(free),
        named="none locked",
        at_least=0.9,
    )


def _beside_clients_of_the_first_item() -> float:
    """Return the rate of the reservations of all other items."""
    with ThreadPoolExecutor(1) as beside:
        few = beside.submit(load.send, OURS, connections=8, items=1)
        rate = load.reserve(OURS, connections=CONNECTIONS, items=ITEMS - 1, first=2).rate
        few.result()
    return rate


def selling_out(environment: Environment) -> Iterator[Measure]:
    """Refusals of a sold-out item, against its reservations before."""
    environment.clear()
    sold, refused = [], []
    with environment.serving(APP, OURS):
        for _ in range(ROUNDS):
            sold.append(load.reserve(OURS, connections=CONNECTIONS, items=1).rate)
            _set_available(environment, 0)
            refused.append(_refuse())
            _set_available(environment, 1_000_000_000)
    yield compare(
        f"refusals/s of a sold-out item, {CONNECTIONS} connections",
        median(refused),
        median(sold),
        named="sold",
        at_least=1,
    )


def _refuse() -> float:
    """Return the rate at which a sold-out item is refused."""
    refusals = load.send(OURS, connections=CONNECTIONS, items=1)
    assert refusals.refused > 0.99 * refusals.rate * load.SECONDS, "a sold-out item was sold"
    return refusals.rate


def _set_available(environment: Environment, quantity: int) -> None:
    with environment.connect() as connection:
        connection.execute("UPDATE items SET available_quantity = %s WHERE id = 1", [quantity])
