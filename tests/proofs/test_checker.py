"""The checker itself: a proof is worth as much as what it would notice."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from uuid import uuid4

import pytest
from sqlalchemy import text

from tests.proofs.checker import check
from tests.proofs.cluster import House
from tests.proofs.conftest import Open
from tests.proofs.partners import Partners, Receipt, Received


@dataclass
class Hearsay:
    """A receiver that says whatever it is made to say."""

    heard: Received

    def received(self) -> Received:
        return self.heard


def test_it_notices_each_kind_of_damage(open_house: Open) -> None:
    house = open_house()
    house.partners.ready()
    item = house.an_item(10)
    house.cancel(house.hold(item, 3))
    house.hold(item, 3)
    house.drain()
    check(house)

    for damage, mended, noticed in DAMAGES:
        with _damaged(house, damage, mended), pytest.raises(AssertionError, match=noticed):
            check(house)
    truth = house.partners.received()
    for lie, noticed in _lies(truth.events):
        with _said(house, lie), pytest.raises(AssertionError, match=noticed):
            check(house)
    with pytest.raises(AssertionError, match="are lost or have other ids"):
        check(house, answered={"nobody": uuid4()})
    check(house)

    house.partners.forget()
    with pytest.raises(AssertionError, match="was confirmed here and is None there"):
        check(house, repeats_at_most=0)


DAMAGES = [
    (
        "UPDATE items SET available_quantity = available_quantity - 1",
        "UPDATE items SET available_quantity = available_quantity + 1",
        "stock = available",
    ),
    (
        "UPDATE outbox SET destination = 'nowhere' WHERE id = 1",
        "UPDATE outbox SET destination = 'journal' WHERE id = 1",
        "promised is not what has happened",
    ),
    (
        "UPDATE outbox SET type = 'booking.expired' WHERE type = 'booking.created'",
        "UPDATE outbox SET type = 'booking.created' WHERE type = 'booking.expired'",
        "promised is not what has happened",
    ),
    (
        "UPDATE outbox SET dead_at = now(), processed_at = NULL WHERE id = 1",
        "UPDATE outbox SET processed_at = now(), dead_at = NULL WHERE id = 1",
        "Not 0 are dead",
    ),
    (
        "UPDATE outbox SET processed_at = NULL WHERE id = 1",
        "UPDATE outbox SET processed_at = now() WHERE id = 1",
        "left before an earlier one",
    ),
]


def _lies(events: Sequence[Receipt]) -> list[tuple[Received, str]]:
    stranger = replace(events[0], event_id=str(uuid4()))
    return [
        (Received(events[1:]), "has not got 1 events"),
        (Received([*events, stranger]), "told what was never committed"),
        (Received(list(reversed(events))), "in the order"),
        (Received(events, repeats=1), "1 repeats of 0"),
    ]


@contextmanager
def _damaged(house: House, damage: str, mended: str) -> Iterator[None]:
    with house.db.begin() as session:
        session.execute(text(damage))
    try:
        yield
    finally:
        with house.db.begin() as session:
            session.execute(text(mended))


@contextmanager
def _said(house: House, lie: Received) -> Iterator[None]:
    truth = house.receiver
    assert isinstance(truth, Partners)
    house.receiver = Hearsay(lie)
    try:
        yield
    finally:
        house.receiver = truth
