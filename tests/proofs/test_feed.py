"""The feed under load, with transactions that commit late and a worker that is killed: each reader has it all, once."""

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any
from uuid import UUID

import httpx
from sqlalchemy import Row, func, select

from domain.items import Item
from domain.outbox.table import outbox
from tests.proofs.checker import check_invariants, wait_until_drained
from tests.proofs.cluster.cluster import Cluster
from tests.proofs.conftest import Open
from tests.proofs.load import Load
from tests.support.sse import ServerSent, streaming
from tests.support.waiting import wait_until

EVENTS = 1_000

#: Transactions that record events and commit them this much later, in seconds.
LATE_TRANSACTIONS, LATE_SECONDS = 40, 0.5

#: A reader of a stream leaves after so many events at the most, and comes back.
LEAVES_WITHIN = 60


def test_every_reader_sees_each_event_once_and_in_order(open_cluster: Open, seed: int) -> None:
    cluster = open_cluster(feed=True, batch_size=10)
    api, killed, _ = cluster.api(), cluster.worker(threads=3), cluster.worker(threads=3)
    cluster.scheduler()
    cluster.partners.ready()
    api.ready()
    item, other, last = (cluster.an_item(100_000) for _ in range(3))
    url = f"http://127.0.0.1:{api.port}"
    with ThreadPoolExecutor(20) as threads:
        readers = [
            threads.submit(reader, url, last.sku, Random(seed + number))
            for number, reader in enumerate((by_pages, by_pages, by_stream, by_stream, by_one_stream))
        ]
        late = [threads.submit(commit_late, cluster, other, Random(seed - number)) for number in range(4)]
        with Load([api.port], [item.id], seed):
            wait_until("the feed grows", lambda: feed_rows(cluster) > EVENTS / 3)
            killed.kill()
            wait_until("enough events are recorded", lambda: feed_rows(cluster) > EVENTS)
        for one in late:
            one.result()
        wait_until_drained(cluster)
        # The first event of this reservation is the last one that the readers wait for.
        (final,) = cluster.hold(last)
        seen = [reader.result() for reader in readers]

    recorded = [one for one in recorded_events(cluster) if one.aggregate_id != final or one.type == "booking.created"]
    for events in seen:
        check(events, recorded)
    check_invariants(cluster)
    print(f"{len(recorded)} events, {len(seen)} readers")


def feed_rows(cluster: Cluster) -> int:
    with cluster.db.begin() as session:
        of_feed = select(func.count()).where(outbox.c.destination == "feed")
        return session.execute(of_feed).scalar_one()


def recorded_events(cluster: Cluster) -> Sequence[Row[Any]]:
    """Return the events for the feed in the order in which they were recorded, which is that of each reservation."""
    with cluster.db.begin() as session:
        columns = outbox.c["event_id", "aggregate_id", "type"]
        return session.execute(select(*columns).where(outbox.c.destination == "feed").order_by(outbox.c.id)).all()


def commit_late(cluster: Cluster, item: Item, random: Random) -> None:
    """Record events again and again, and commit each of them after others that were recorded later."""
    for _ in range(LATE_TRANSACTIONS // 4):
        with cluster.db() as session:
            cluster.hold_in(session, item, times=random.randint(1, 5))
            time.sleep(random.uniform(0, LATE_SECONDS))
            session.commit()


def by_pages(url: str, last_sku: str, random: Random) -> list[dict[str, Any]]:
    """Read page after page, of any size, until the last event is there."""
    events: list[dict[str, Any]] = []
    after = 0
    with httpx.Client(base_url=url) as client:
        while not (events and events[-1]["payload"]["sku"] == last_sku):
            limit = random.randint(1, 50)
            page = client.get("/events", params={"after": after, "limit": limit}).raise_for_status().json()
            events, after = events + page["events"], page["next_after"]
    # The last page may have further events of the last reservation, which streams are not read for.
    skus = [one["payload"]["sku"] for one in events]
    return events[: skus.index(last_sku) + 1]


def by_stream(url: str, last_sku: str, random: Random) -> list[dict[str, Any]]:
    """Read streams, each of which is left after any number of events, and continued where it was left."""
    events: list[dict[str, Any]] = []
    with httpx.Client(base_url=url, timeout=60) as client:
        while not (events and events[-1]["payload"]["sku"] == last_sku):
            last_seen = {"Last-Event-ID": str(events[-1]["position"])} if events else {}
            with streaming(client, **last_seen) as stream:
                events += until(last_sku, stream.events, random.randint(1, LEAVES_WITHIN))
    return events


def by_one_stream(url: str, last_sku: str, _: Random) -> list[dict[str, Any]]:
    """Read one stream from beginning to end."""
    with httpx.Client(base_url=url, timeout=60) as client, streaming(client) as stream:
        return list(until(last_sku, stream.events, 1_000_000))


def until(last_sku: str, stream: Iterator[ServerSent], most: int) -> Iterator[dict[str, Any]]:
    for _, one in zip(range(most), stream, strict=False):
        assert (one.id, one.event) == (str(one.data["position"]), one.data["type"])
        yield one.data
        if one.data["payload"]["sku"] == last_sku:
            return


def check(events: Sequence[dict[str, Any]], recorded: Sequence[Row[Any]]) -> None:
    """Check that each recorded event was seen once, at a position of its own, and in the order of its reservation."""
    assert [one["position"] for one in events] == list(range(1, len(recorded) + 1))
    assert {UUID(one["event_id"]) for one in events} == {row.event_id for row in recorded}
    in_order: dict[UUID, list[UUID]] = defaultdict(list)
    for row in recorded:
        in_order[row.aggregate_id].append(row.event_id)
    seen: dict[UUID, list[UUID]] = defaultdict(list)
    for one in events:
        seen[UUID(one["reservation_id"])].append(UUID(one["event_id"]))
    assert seen == in_order
