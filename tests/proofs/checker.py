"""What must be true after any fault: it knows every commit, and what the outside world was told."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row, select
from sqlalchemy.orm import Session

from domain import conservation
from domain.idempotency import requests
from domain.lifecycle import Status
from domain.outbox.table import outbox
from domain.reservations.table import history, reservations
from tests.proofs.house import House
from tests.proofs.partners import Receipt, Received
from tests.proofs.waiting import PATIENCE_SECONDS, wait_until

#: What the booking contract tells about each step of a reservation: written down here once
#: more, as a checker that asks the code what is right finds that it is.
TOLD = {
    Status.PENDING: ("booking.created",),
    Status.CONFIRMED: ("booking.status_changed", "booking.confirmed"),
    Status.CANCELLED: ("booking.status_changed", "booking.cancelled"),
    Status.EXPIRED: ("booking.status_changed", "booking.expired"),
}

SINKS = ("journal", "partner")
CONFIRMATION = "confirmation"


@dataclass(frozen=True)
class Count:
    """How the outbox stands, in rows."""

    recorded: int
    delivered: int
    pending: int
    dead: int
    attempts: int


def count(house: House) -> Count:
    with house.db.begin() as session:
        rows = session.execute(select(outbox)).all()
    delivered = sum(row.processed_at is not None for row in rows)
    dead = sum(row.dead_at is not None for row in rows)
    return Count(len(rows), delivered, len(rows) - delivered - dead, dead, sum(row.attempts for row in rows))


def statuses(house: House, ids: Sequence[UUID]) -> Counter[str]:
    """Return how many of these reservations have each status."""
    with house.db.begin() as session:
        wanted = select(reservations.c.status).where(reservations.c.id.in_(ids))
        return Counter(session.execute(wanted).scalars())


def wait_until_drained(house: House, *, within: float = PATIENCE_SECONDS) -> None:
    """Wait until every promise has left or is dead, and nothing that follows from one is on its way."""
    wait_until("everything is delivered", lambda: count(house).pending == 0, within=within)


def check(
    house: House, *, repeats_at_most: int = 0, dead: int = 0, answered: Mapping[str, UUID] | None = None
) -> Count:
    """Check that nothing is lost, invented, out of order, oversold, or told more often than it can be.

    `repeats_at_most` are those to each destination: what could be in flight when a
    lease was lost. `answered` are the keys that customers hold answers to.
    """
    with house.db.begin() as session:
        told = defaultdict(list)
        for row in session.execute(select(outbox).order_by(outbox.c.id)):
            told[row.destination].append(row)
        _check_laws(session)
        _check_that_all_was_recorded(session, told)
        if answered is not None:
            _check_answers(session, answered)
        _check_the_confirmation_service(session, house.partners.bookings(), told[CONFIRMATION])
    for name, received in (("partner", house.receiver.received()), ("journal", _journal(house))):
        _check_receipts(name, told[name], received)
        assert received.repeats <= repeats_at_most, f"{name}: {received.repeats} repeats of {repeats_at_most} at most"
    counted = count(house)
    assert counted.dead == dead
    return counted


def _check_laws(session: Session) -> None:
    broken = [finding for finding in conservation.examine(session) if finding.broken]
    assert not broken, broken


def _check_that_all_was_recorded(session: Session, told: Mapping[str, Sequence[Row[Any]]]) -> None:
    """Every step that a reservation has taken is told to each sink, once, in the order of the steps."""
    expected: dict[UUID, list[str]] = defaultdict(list)
    for step in session.execute(select(history).order_by(history.c.id)):
        expected[step.reservation_id] += TOLD[Status(step.to_status)]
    for sink in SINKS:
        recorded: dict[UUID, list[str]] = defaultdict(list)
        for row in told[sink]:
            recorded[row.aggregate_id].append(row.type)
        assert recorded == expected, f"What {sink} is promised is not what has happened."
    asked = Counter(row.aggregate_id for row in told[CONFIRMATION] if row.type == "reservation_confirm")
    assert asked == Counter(expected.keys()), "Not every hold, or more than that, is to be confirmed."


def _check_answers(session: Session, answered: Mapping[str, UUID]) -> None:
    """What a customer was answered is there, once, under the same key."""
    made = select(reservations.c.id, reservations.c.idempotency_key)
    by_key = {row.idempotency_key: row.id for row in session.execute(made)}
    ids = session.execute(made).all()
    assert len(ids) == len(by_key), "A key has made two reservations."
    lost = {key: one for key, one in answered.items() if by_key.get(key) != one}
    assert not lost, f"{len(lost)} answered reservations are lost or have other ids: {list(lost)[:5]}"
    stored = select(requests.c.idempotency_key, requests.c.reservation_id).where(
        requests.c.operation == "reservations.make"
    )
    assert {row.idempotency_key: row.reservation_id for row in session.execute(stored)} == by_key


def _check_receipts(name: str, rows: Sequence[Row[Any]], received: Received) -> None:
    """Nothing lost, nothing that was not committed, and order per reservation, repeats aside."""
    ids = {str(row.event_id): row.id for row in rows}
    got = {receipt.event_id for receipt in received.events}
    assert got <= ids.keys(), f"{name} was told what was never committed: {sorted(got - ids.keys())[:5]}"
    settled = {str(row.event_id) for row in rows if row.processed_at is not None}
    assert settled <= got, f"{name} has not got {len(settled - got)} events that are settled as delivered."
    for booking_id, order in _orders(received.events, ids):
        assert order == sorted(order), f"{name} was told of {booking_id} in the order {order}"


def _orders(events: Iterable[Receipt], ids: Mapping[str, int]) -> Iterable[tuple[str, list[int]]]:
    """Return the ids of the rows of each booking in the order of their first receipt."""
    orders = defaultdict(list)
    for event in events:
        orders[event.booking_id].append(ids[event.event_id])
    return orders.items()


def _journal(house: House) -> Received:
    """Return what the destination `journal` got: every line of its file is whole."""
    path = house.journal()
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    receipts = [Receipt(line["event_id"], line["event_type"], line["payload"]["booking_id"]) for line in lines]
    first = {receipt.event_id: receipt for receipt in reversed(receipts)}
    seen = dict.fromkeys(receipt.event_id for receipt in receipts)
    return Received([first[event_id] for event_id in seen], len(receipts) - len(first))


def _check_the_confirmation_service(
    session: Session, bookings: Mapping[str, str], told: Sequence[Row[Any]]
) -> None:
    """With nothing on its way, whoever was never confirmed here is not left confirmed there, and the reverse."""
    on_its_way = {row.aggregate_id for row in told if row.processed_at is None and row.dead_at is None}
    given_up = {row.aggregate_id for row in told if row.dead_at is not None}
    confirmed_by = select(history.c.reservation_id, history.c.changed_by).where(history.c.to_status == "CONFIRMED")
    confirmed = {row.reservation_id: row.changed_by for row in session.execute(confirmed_by)}
    for one in session.execute(select(reservations.c.id)).scalars():
        if one in on_its_way | given_up:
            continue
        standing = bookings.get(str(one))
        if one not in confirmed:
            assert standing != "confirmed", f"{one} is confirmed there and not here."
        elif confirmed[one] == "confirmation-service":
            assert standing == "confirmed", f"{one} is confirmed here and {standing} there."
