"""The checker itself: a proof is worth as much as what the checker would notice."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from uuid import uuid4

import pytest
from sqlalchemy import text

from tests.proofs.checker import check
from tests.proofs.cluster.cluster import Cluster
from tests.proofs.cluster.partners import Partners, Receipt, Received
from tests.proofs.conftest import Open


@dataclass
class FalseListener:
    """A receiver whose record says whatever the test wants."""

    record: Received

    def received(self) -> Received:
        return self.record


def test_it_notices_each_kind_of_damage(open_cluster: Open) -> None:
    cluster = open_cluster()
    cluster.partners.ready()
    item = cluster.an_item(10)
    cluster.cancel(cluster.hold(item, 3))
    cluster.hold(item, 3)
    cluster.drain()
    check(cluster)

    for damage, repair, noticed in DAMAGES:
        with _damaged(cluster, damage, repair), pytest.raises(AssertionError, match=noticed):
            check(cluster)
    truth = cluster.partners.received()
    for false_record, noticed in _false_records(truth.events):
        with _recorded_as(cluster, false_record), pytest.raises(AssertionError, match=noticed):
            check(cluster)
    with pytest.raises(AssertionError, match="are lost or have other ids"):
        check(cluster, answered={"nobody": uuid4()})
    check(cluster)

    cluster.partners.clear()
    with pytest.raises(AssertionError, match="was confirmed here and is None there"):
        check(cluster, repeats_at_most=0)


DAMAGES = [
    (
        "UPDATE items SET available_quantity = available_quantity - 1",
        "UPDATE items SET available_quantity = available_quantity + 1",
        "stock = available",
    ),
    (
        "UPDATE outbox SET destination = 'nowhere' WHERE id = 1",
        "UPDATE outbox SET destination = 'journal' WHERE id = 1",
        "recorded for journal is not what has happened",
    ),
    (
        "UPDATE outbox SET type = 'booking.expired' WHERE type = 'booking.created'",
        "UPDATE outbox SET type = 'booking.created' WHERE type = 'booking.expired'",
        "recorded for journal is not what has happened",
    ),
    (
        "UPDATE outbox SET dead_at = now(), processed_at = NULL WHERE id = 1",
        "UPDATE outbox SET processed_at = created_at, dead_at = NULL WHERE id = 1",
        "Not 0 are dead",
    ),
    (
        "UPDATE outbox SET processed_at = NULL WHERE id = 1",
        "UPDATE outbox SET processed_at = created_at WHERE id = 1",
        "no event was delivered before an earlier event",
    ),
]


def _false_records(events: Sequence[Receipt]) -> list[tuple[Received, str]]:
    stranger = replace(events[0], event_id=str(uuid4()))
    return [
        (Received(events[1:]), "has not got 1 events"),
        (Received([*events, stranger]), "got what was never committed"),
        (Received(list(reversed(events))), "in the order"),
        (Received(events, repeats=1), "1 repeats of 0"),
    ]


@contextmanager
def _damaged(cluster: Cluster, damage: str, repair: str) -> Iterator[None]:
    with cluster.db.begin() as session:
        session.execute(text(damage))
    try:
        yield
    finally:
        with cluster.db.begin() as session:
            session.execute(text(repair))


@contextmanager
def _recorded_as(cluster: Cluster, record: Received) -> Iterator[None]:
    truth = cluster.receiver
    assert isinstance(truth, Partners)
    cluster.receiver = FalseListener(record)
    try:
        yield
    finally:
        cluster.receiver = truth
