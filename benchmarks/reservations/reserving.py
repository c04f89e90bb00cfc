"""Reservations over HTTP: ours and the textbook's, measured in turn."""

from collections import defaultdict
from collections.abc import Iterator

import psutil

from benchmarks.environment import ITEMS, Environment
from benchmarks.measure import Measure, compare, median, resident_memory
from benchmarks.reservations import load
from benchmarks.reservations.load import Load

#: Ours and the textbook's are measured this many times, in turn, so that a noisy moment affects both.
ROUNDS = 3

CONNECTIONS = 64

OURS, TEXTBOOK = 8100, 8101

#: What is measured: the number of connections, and the number of items that they reserve.
LOADS = {"hot": (CONNECTIONS, 1), "cold": (CONNECTIONS, ITEMS), "lone": (1, 1)}


def reserving(environment: Environment) -> Iterator[Measure]:
    """Reservations over HTTP, against the ORM textbook: one hot item, 10,000 items, a lone client."""
    environment.clear()
    loads: dict[tuple[str, int], list[Load]] = defaultdict(list)
    with (
        environment.serving("api.app:create_app", OURS) as process,
        environment.serving("benchmarks.reservations.textbook:create_app", TEXTBOOK),
    ):
        for _ in range(ROUNDS):
            for port in (TEXTBOOK, OURS):
                for name, (connections, items) in LOADS.items():
                    loads[name, port].append(load.reserve(port, connections=connections, items=items))
        memory = max(child.memory_info().rss for child in psutil.Process(process.pid).children(recursive=True))
    yield from _rates(loads)
    yield _lone(loads)
    yield resident_memory("the api", memory)


def _rates(loads: dict[tuple[str, int], list[Load]]) -> Iterator[Measure]:
    rate = {key: median([one.rate for one in several]) for key, several in loads.items()}
    for load_name, items, budget in (("hot", "one hot item", 15), ("cold", "10,000 items", 8)):
        yield compare(
            f"reservations/s over HTTP, {items}, {CONNECTIONS} connections",
            rate[load_name, OURS],
            rate[load_name, TEXTBOOK],
            named="ORM textbook",
            at_least=budget,
        )
    yield compare(
        "reservations/s over HTTP, hot ÷ cold", rate["hot", OURS], rate["cold", OURS], named="cold", at_least=0.9
    )


def _lone(loads: dict[tuple[str, int], list[Load]]) -> Measure:
    ours, textbook = (median([one.p50 for one in loads["lone", port]]) for port in (OURS, TEXTBOOK))
    return Measure(
        what="a lone request, p50",
        measured=f"{ours:.1f} ms",
        baseline=f"ORM textbook {textbook:.1f} ms: {ours / textbook:.0%}",
        budget="≤ 100%",
        met=ours <= textbook,
        numbers={"measured": ours, "baseline": textbook, "ratio": ours / textbook, "budget": 1},
    )


def selling_out(environment: Environment) -> Iterator[Measure]:
    """Refusals of a sold-out item, against its reservations before."""
    environment.clear()
    sold, refused = [], []
    with environment.serving("api.app:create_app", OURS):
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
