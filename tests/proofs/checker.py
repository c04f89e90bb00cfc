"""What must be true after any fault. The outbox is compared with the events that the receivers got."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row, func, select
from sqlalchemy.orm import Session

from domain import invariants
from domain.access import audit
from domain.idempotency import requests
from domain.outbox.table import outbox, pending
from domain.reservations.lifecycle import Kind, Status
from domain.reservations.table import history, reservations
from tests.proofs.cluster.cluster import Cluster
from tests.proofs.cluster.partners import Receipt, Received, received_in
from tests.support.waiting import PATIENCE_SECONDS, wait_until

#: The events of each step of a reservation, by the booking contract. They are repeated here, because a checker that
#: took them from the code would find the code right, whatever it does.
EVENT_TYPES = {
    Status.PENDING: ("booking.created",),
    Status.CONFIRMED: ("booking.status_changed", "booking.confirmed"),
    Status.CANCELLED: ("booking.status_changed", "booking.cancelled"),
    Status.REJECTED: ("booking.status_changed", "booking.rejected"),
    Status.EXPIRED: ("booking.status_changed", "booking.expired"),
}

#: The event of a change that is not one of the status.
EVENT_TYPE = {Kind.EXTENDED: "booking.extended", Kind.CHANGED: "booking.updated"}

SINKS = ("journal", "partner")
CONFIRMATION = "confirmation"

#: The rows of each destination, in order of id.
Rows = Mapping[str, Sequence[Row[Any]]]


@dataclass(frozen=True)
class Count:
    """How many rows the outbox has in each state; `attempts` is the sum of all attempts that were spent."""

    recorded: int
    delivered: int
    pending: int
    dead: int
    attempts: int


def count(cluster: Cluster) -> Count:
    statement = select(
        func.count(),
        func.count(outbox.c.processed_at),
        func.count().filter(pending),
        func.count(outbox.c.dead_at),
        func.coalesce(func.sum(outbox.c.attempts), 0),
    ).select_from(outbox)
    with cluster.db.begin() as session:
        return Count(*session.execute(statement).one())


def statuses(cluster: Cluster, ids: Sequence[UUID]) -> Counter[str]:
    """Return how many of these reservations have each status."""
    with cluster.db.begin() as session:
        wanted = select(reservations.c.status).where(reservations.c.id.in_(ids))
        return Counter(session.execute(wanted).scalars())


def wait_until_drained(cluster: Cluster, *, skipping: bool = False, within: float = PATIENCE_SECONDS) -> None:
    """Wait until no row is pending. With `skipping`, the pauses of retries and circuit breakers are skipped."""

    def is_drained() -> bool:
        if skipping:
            cluster.skip_pauses()
            cluster.wake()
        return count(cluster).pending == 0

    wait_until("everything is delivered", is_drained, within=within)


def wait_until_in_mid_delivery(cluster: Cluster, *names: str, lanes: int = 1) -> None:
    """Wake workers until this many lanes of these destinations are leased."""

    def is_calling() -> bool:
        cluster.wake()
        return sum(map(cluster.lanes_leased, names)) >= lanes

    wait_until("lanes are in mid-delivery", is_calling)


def check_invariants(cluster: Cluster) -> None:
    """Check what must hold at any moment, whatever is going on."""
    with cluster.db.begin() as session:
        # No scheduler runs in most proofs, and in some the clock leaps: an entry would seem to have waited for hours.
        audit.seal(session)
        violated = [finding for finding in invariants.examine(session) if finding.violations]
    assert not violated, violated


def check(
    cluster: Cluster,
    *,
    repeats_at_most: int | Mapping[str, int] = 0,
    dead: int = 0,
    answered: Mapping[str, UUID] | None = None,
) -> Count:
    """Check that nothing is lost, invented, out of order or oversold, and nothing is sent too often.

    `repeats_at_most` is the limit of repeats for each sink, or for the sinks by name: the rows that may have been in
    flight when a lease was lost. `answered` are the reservations that clients have answers to, by key.
    """
    check_invariants(cluster)
    with cluster.db.begin() as session:
        rows = _rows(session)
        _check_that_all_is_recorded(session, rows, (*SINKS, *cluster.listeners))
        _check_the_answers(session, answered or {})
        _check_the_confirmation_service(session, cluster.partners.bookings(), rows[CONFIRMATION])
    for sink, received in received_by_sink(cluster).items():
        _check_the_receipts(sink, rows[sink], received)
        limit = repeats_at_most if isinstance(repeats_at_most, int) else repeats_at_most.get(sink, 0)
        assert received.repeats <= limit, f"{sink} got {received.repeats} repeats of {limit}."
    counted = count(cluster)
    assert counted.delivered + counted.pending + counted.dead == counted.recorded, f"It does not add up: {counted}"
    assert counted.dead == dead, f"Not {dead} are dead: {counted}"
    return counted


def _rows(session: Session) -> Rows:
    rows = defaultdict(list)
    for row in session.execute(select(outbox).order_by(outbox.c.id)):
        rows[row.destination].append(row)
    return rows


def _check_that_all_is_recorded(session: Session, rows: Rows, sinks: Sequence[str]) -> None:
    """Each step of a reservation is recorded for each sink, once, in the order of the steps."""
    happened: dict[UUID, list[str]] = defaultdict(list)
    for step in session.execute(select(history).order_by(history.c.id)):
        of_fields = EVENT_TYPE.get(step.kind)
        happened[step.reservation_id] += [of_fields] if of_fields else EVENT_TYPES[Status(step.to_status)]
    for sink in sinks:
        recorded: dict[UUID, list[str]] = defaultdict(list)
        for row in rows[sink]:
            recorded[row.aggregate_id].append(row.type)
        assert recorded == happened, f"What is recorded for {sink} is not what has happened."
    asked = Counter(row.aggregate_id for row in rows[CONFIRMATION] if row.type == "reservation_confirm")
    assert asked == Counter(happened.keys()), "Not each hold is to be confirmed once."


def _check_the_answers(session: Session, answered: Mapping[str, UUID]) -> None:
    """No key has made two reservations, and each reservation that a client was answered exists."""
    made = session.execute(select(reservations.c.id, reservations.c.idempotency_key)).all()
    by_key = {one.idempotency_key: one.id for one in made if one.idempotency_key is not None}
    keyless = sum(one.idempotency_key is None for one in made)
    assert len(made) == len(by_key) + keyless, "A key has made two reservations."
    lost = {key: one for key, one in answered.items() if by_key.get(key) != one}
    assert not lost, f"{len(lost)} answered reservations are lost or have other ids: {list(lost)[:5]}"
    made_by = select(requests.c.idempotency_key, requests.c.reservation_id).where(
        requests.c.reservation_id.is_not(None)
    )
    assert dict(map(tuple, session.execute(made_by))) == by_key, "Not every answer is stored under its key."


def _check_the_confirmation_service(session: Session, bookings: Mapping[str, str], rows: Sequence[Row[Any]]) -> None:
    """A reservation that was never confirmed here is not confirmed there at the end, nor the other way round.

    Reservations with rows that are pending or dead may differ.
    """
    unfinished = {row.aggregate_id for row in rows if row.processed_at is None}
    by_service = func.bool_or(history.c.changed_by == "confirmation-service")
    confirmed = select(history.c.reservation_id, by_service).where(history.c.to_status == Status.CONFIRMED)
    here = dict(map(tuple, session.execute(confirmed.group_by(history.c.reservation_id))))
    for one in set(session.execute(select(reservations.c.id)).scalars()) - unfinished:
        there = bookings.get(str(one))
        assert one in here or there != "confirmed", f"{one} is confirmed there and was never confirmed here."
        assert not here.get(one) or there == "confirmed", f"{one} was confirmed here and is {there} there."


def _check_the_receipts(sink: str, rows: Sequence[Row[Any]], received: Received) -> None:
    """Nothing is lost, only committed events were received, and their order is kept, apart from repeats."""
    ids = {str(row.event_id): row.id for row in rows}
    got = {receipt.event_id for receipt in received.events}
    assert got <= ids.keys(), f"{sink} got what was never committed: {sorted(got - ids.keys())[:5]}"
    settled = {str(row.event_id) for row in rows if row.processed_at is not None}
    assert settled <= got, f"{sink} has not got {len(settled - got)} events that are settled as delivered."
    for booking_id, order in _orders(received.events, ids):
        assert order == sorted(order), f"{sink} got the events of {booking_id} in the order {order}"


def _orders(events: Iterable[Receipt], ids: Mapping[str, int]) -> Iterable[tuple[str, list[int]]]:
    """Return the ids of the rows of each booking, in the order of their first receipt."""
    orders = defaultdict(list)
    for event in events:
        orders[event.booking_id].append(ids[event.event_id])
    return orders.items()


def received_by_sink(cluster: Cluster) -> Mapping[str, Received]:
    """Return what each sink has received up to now."""
    further = {name: listener.received() for name, listener in cluster.listeners.items()}
    return {"partner": cluster.receiver.received(), "journal": _journal(cluster)} | further


def _journal(cluster: Cluster) -> Received:
    """Return what the destination `journal` got. Every line of its file is complete."""
    path = cluster.home / "journal.jsonl"
    return received_in(path.read_text().splitlines() if path.exists() else ())
