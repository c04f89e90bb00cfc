"""Everything that a hostile neighbour can do, all at once, and the clients who have nothing to do with it.

An item is locked for 30 s. Another one has 100,000 overdue holds, and a client that asks for all their units. There are
2,000 idle connections and 2,000 that send their bodies byte by byte, and a reader lists everything in a loop.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from statistics import median
from uuid import UUID

import psutil
import pytest
from sqlalchemy import text

from api.group_commit import QUEUE_SECONDS
from domain import items, outbox
from domain.items import Item
from tests.proofs.checker import check_invariants
from tests.proofs.cluster.cluster import Cluster
from tests.proofs.cluster.processes import Api
from tests.proofs.conftest import Open
from tests.support.callers import Answers, Callers, getting, request, reserving
from tests.support.crowds import BODY, NOTHING, Crowd

pytestmark = pytest.mark.alone

LOCKED_SECONDS = 30.0

#: How long everything is measured without pressure, and how long the spans are of which a rate is taken.
BEFORE_SECONDS = 6.0
SPAN_SECONDS = 1.0

OVERDUE = 100_000

#: More holds than are confirmed in the whole proof.
CONFIRMED = 6_000

#: The part of their rate that the clients keep.
KEPT = 0.8

#: The time within which 99 of 100 holds are confirmed; or so many times what it is without pressure, if that is more.
CONFIRM_SECONDS = 0.25
CONFIRM_FACTOR = 5

#: The memory that all processes of the API have together.
MOST_BYTES = 300_000_000

#: An answer comes within this time of its deadline, on a machine however busy.
SLACK_SECONDS = 5.0


@dataclass
class Clients:
    """Those that have nothing to do with the trouble."""

    reserving: Callers
    confirming: Callers
    live: Callers
    ready: Callers


@dataclass
class Neighbours:
    """Those that make trouble, as far as they are answered."""

    greedy: Callers
    reading: Callers


@dataclass
class Span:
    """What the clients were answered within a span of time, and the memory of the API at its end."""

    reserving: Answers
    confirming: Answers
    memory: int


def test_neighbours_that_are_locked_greedy_slow_and_many_disturb_nobody(open_cluster: Open) -> None:
    cluster = open_cluster()
    with cluster.db.begin() as session:
        outbox.register(session, cluster.routes.names)  # as a worker does, of which there is none
    free = [cluster.an_item(1_000_000) for _ in range(8)]
    locked, greedy = cluster.an_item(100_000), cluster.an_item(OVERDUE)
    holds = _hold(cluster, free[0], CONFIRMED, "1 hour")
    overdue = _hold(cluster, greedy, OVERDUE, "-1 minute")
    api = cluster.api().ready()

    with _clients(api, free, holds) as clients, Callers(api.port, [reserving(locked.id)] * 8, 0.05) as waiting:
        before = _spans(api, clients, BEFORE_SECONDS)
        with _pressure(cluster, api, locked, greedy, overdue) as neighbours:
            already = len(waiting.answers)
            during = _spans(api, clients, LOCKED_SECONDS)
            refused = [answer for answer in waiting.answers[already:] if answer.status != 201]
        waiting.wait_for(8, 201)

    _report(before, during, neighbours)
    assert _statuses(clients.reserving, clients.confirming, clients.live, clients.ready) == [{201}, {200}, {200}, {200}]
    assert _rate(during) >= KEPT * _rate(before)
    assert _p99(during) <= max(CONFIRM_SECONDS, CONFIRM_FACTOR * _p99(before))
    assert max(span.memory for span in during) <= MOST_BYTES
    assert {answer.problem for answer in refused} == {"busy"}
    assert max(answer.seconds for answer in refused) < QUEUE_SECONDS + SLACK_SECONDS
    assert _statuses(neighbours.reading) == [{200}]
    assert _faults(api) == []
    with cluster.db.begin() as session:
        session.execute(text("ANALYZE"))  # which PostgreSQL does by itself, sooner or later
    check_invariants(cluster)


def _hold(cluster: Cluster, item: Item, count: int, lasting: str) -> Sequence[UUID]:
    """Hold one unit this many times. Return the ids of the reservations."""
    with cluster.db.begin() as session:
        made = session.execute(_HOLD, {"item": item.id, "count": count, "lasting": lasting}).scalars().all()
        items.lock(session, [item.id])
        items.move(session, {item.id: -count})
        return made


# The product itself would take half a minute for as many.
_HOLD = text("""
    WITH made AS (
        INSERT INTO reservations (id, item_id, quantity, status, expires_at)
        SELECT gen_random_uuid(), :item, 1, 'PENDING', now() + cast(:lasting AS interval)
        FROM generate_series(1, :count)
        RETURNING id
    ), noted AS (
        INSERT INTO reservation_history (reservation_id, to_status, changed_by) SELECT id, 'PENDING', 'proof' FROM made
    )
    SELECT id FROM made
""")


@contextmanager
def _clients(api: Api, free: list[Item], holds: Sequence[UUID]) -> Iterator[Clients]:
    confirming = [
        [request("POST", f"/reservations/{hold}/confirm", {}) for hold in holds[part::8]] for part in range(8)
    ]
    with (
        Callers(api.port, [reserving(item.id) for item in free * 5], rest_seconds=0.25) as reserving_free,
        Callers(api.port, confirming, rest_seconds=0.1) as confirming_holds,
        Callers(api.port, [getting("/health/live")], rest_seconds=0.1) as live,
        Callers(api.port, [getting("/health/ready")], rest_seconds=0.1) as ready,
    ):
        yield Clients(reserving_free, confirming_holds, live, ready)


@contextmanager
def _pressure(cluster: Cluster, api: Api, locked: Item, greedy: Item, listed: Sequence[UUID]) -> Iterator[Neighbours]:
    """Make all the trouble at once, until the block ends."""
    cursors = sorted(map(str, listed), reverse=True)[::1_000]
    pages = [request("GET", f"/reservations?limit=1000&cursor={cursor}") for cursor in cursors]
    with (
        Callers(api.port, [reserving(greedy.id, OVERDUE)]) as wanting,
        Callers(api.port, [cycle(pages)]) as reading,
        Crowd(api.port, 2_000, NOTHING),
        Crowd(api.port, 2_000, BODY, b"x"),
        cluster.db.begin() as session,
    ):
        items.lock(session, [locked.id])
        yield Neighbours(wanting, reading)


def _spans(api: Api, clients: Clients, seconds: float) -> Sequence[Span]:
    return [_span(api, clients) for _ in range(int(seconds / SPAN_SECONDS))]


def _span(api: Api, clients: Clients) -> Span:
    already = len(clients.confirming.answers)
    reserved = clients.reserving.during(SPAN_SECONDS)
    confirmed = Answers(clients.confirming.answers[already:], reserved.seconds)
    # A page that several processes share is counted in parts.
    memory = sum(psutil.Process(pid).memory_full_info().pss for pid in api.process.pids())
    return Span(reserved, confirmed, memory)


def _rate(spans: Sequence[Span]) -> float:
    return median(span.reserving.rate for span in spans)


def _p99(spans: Sequence[Span]) -> float:
    return Answers([answer for span in spans for answer in span.confirming.answers], 1).quantile(0.99)


def _statuses(*several: Callers) -> list[set[int]]:
    return [{answer.status for answer in callers.answers} for callers in several]


def _faults(api: Api) -> list[str]:
    lines = api.process.log.read_text().splitlines()
    return [line for line in lines if '"level": "error"' in line or "Traceback" in line]


def _report(before: Sequence[Span], during: Sequence[Span], neighbours: Neighbours) -> None:
    for name, spans in (("before", before), ("under pressure", during)):
        memory = max(span.memory for span in spans) / 1e6
        print(f"{name}: {_rate(spans):.0f} made/s, confirm p99 {_p99(spans) * 1e3:.0f} ms, {memory:.0f} MB")
    for name, callers in vars(neighbours).items():
        print(f"{name}: {Answers(callers.answers, LOCKED_SECONDS)}")
