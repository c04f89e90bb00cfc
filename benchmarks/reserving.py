"""Reservations over HTTP, ours and the textbook's in turn."""

import secrets
from collections import defaultdict
from collections.abc import Iterator

import psutil

from benchmarks.environment import ITEMS, Stage
from benchmarks.measure import Load, Measure, load, median

#: Each of the two is measured so often, in turn, so that a noisy moment hits both.
ROUNDS = 3

SECONDS = 6

CONNECTIONS = 64

OURS, TEXTBOOK = 8100, 8101

#: What one API process may occupy, in bytes.
MEMORY_BUDGET = 150 * 2**20


def reserving(stage: Stage) -> Iterator[Measure]:
    """One hot item, many cold ones, a lone client, and the memory that it takes."""
    stage.clear()
    seen: dict[tuple[str, int], list[Load]] = defaultdict(list)
    with (
        stage.serving("api.app:create_app", OURS) as process,
        stage.serving("benchmarks.textbook:create_app", TEXTBOOK),
    ):
        for _ in range(ROUNDS):
            for port in (TEXTBOOK, OURS):
                for what, connections, items in (("hot", 64, 1), ("cold", 64, ITEMS), ("lone", 1, 1)):
                    seen[what, port].append(_sold(port, connections, items))
        memory = max(child.memory_info().rss for child in psutil.Process(process.pid).children(recursive=True))
    yield from _rates(seen)
    yield from _lone(seen)
    yield Measure(
        what="resident memory of the api, after that load",
        figure=f"{memory / 2**20:.0f} MB",
        budget="≤ 150 MB",
        met=memory <= MEMORY_BUDGET,
    )


def _sold(port: int, connections: int, items: int) -> Load:
    """Measure what is really reserved: fast refusals and errors are no figure."""
    seen = _load(port, connections, items)
    assert seen.refused == 0, f"{seen.refused} answers were not 201"
    return seen


def _load(port: int, connections: int, items: int) -> Load:
    return load(port, connections=connections, seconds=SECONDS, items=items, run=secrets.token_hex(4))


def _rates(seen: dict[tuple[str, int], list[Load]]) -> Iterator[Measure]:
    rate = {key: median([one.rate for one in loads]) for key, loads in seen.items()}
    for what, name, budget in (("hot", "one hot item", 10), ("cold", "10,000 items", 6)):
        ratio = rate[what, OURS] / rate[what, TEXTBOOK]
        yield Measure(
            what=f"reservations/s over HTTP, {name}, 64 connections",
            figure=f"{rate[what, OURS]:,.0f}",
            baseline=f"textbook {rate[what, TEXTBOOK]:,.0f}: {ratio:.1f} ×",
            budget=f"≥ {budget} ×",
            met=ratio >= budget,
        )
    ratio = rate["hot", OURS] / rate["cold", OURS]
    yield Measure(what="hot ÷ cold", figure=f"{ratio:.2f}", budget="≥ 0.9", met=ratio >= 0.9)


def _lone(seen: dict[tuple[str, int], list[Load]]) -> Iterator[Measure]:
    ours, textbook = (median([one.p50 for one in seen["lone", port]]) for port in (OURS, TEXTBOOK))
    yield Measure(
        what="a lone request, p50",
        figure=f"{ours:.1f} ms",
        baseline=f"textbook {textbook:.1f} ms",
        budget="≤ textbook",
        met=ours <= textbook,
    )


def selling_out(stage: Stage) -> Iterator[Measure]:
    """A sold-out item refuses at least as fast as it sold."""
    stage.clear()
    sold, refused = [], []
    with stage.serving("api.app:create_app", OURS):
        for _ in range(ROUNDS):
            sold.append(_sold(OURS, CONNECTIONS, 1).rate)
            _set_available(stage, 0)
            turned_away = _load(OURS, CONNECTIONS, 1)
            assert turned_away.refused > 0.99 * turned_away.rate * SECONDS, "a sold-out item was sold"
            refused.append(turned_away.rate)
            _set_available(stage, 1_000_000_000)
    ratio = median(refused) / median(sold)
    yield Measure(
        what="refusals/s of a sold-out item, 64 connections",
        figure=f"{median(refused):,.0f}",
        baseline=f"sold {median(sold):,.0f}: {ratio:.1f} ×",
        budget="≥ 1 ×",
        met=ratio >= 1,
    )


def _set_available(stage: Stage, quantity: int) -> None:
    with stage.connect() as connection:
        connection.execute("UPDATE items SET available_quantity = %s WHERE id = 1", [quantity])
