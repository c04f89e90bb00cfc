"""The time of calendars as it was sold, decision by decision, counted anew quarter of an hour by quarter of an hour."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, select

from domain.calendars.table import occupancies
from domain.items import Item
from domain.reservations.lifecycle import Kind, Status
from domain.reservations.table import history, reservations
from tests.proofs.cluster.cluster import Cluster
from tests.support.builders import FRIDAY

QUARTER = timedelta(minutes=15)

#: The statuses in which time is free again.
FREE = {Status.CANCELLED, Status.REJECTED, Status.EXPIRED}

#: What a reservation takes of its calendar: the fields `starts_at`, `ends_at` and `quantity`.
Taken = Mapping[str, Any]

FIELDS = "starts_at", "ends_at", "quantity"


def quarter(number: int) -> datetime:
    """Return the moment that is so many quarters of an hour after a midnight."""
    return FRIDAY + number * QUARTER


@dataclass
class Ledger:
    """How many units of one calendar are sold in each quarter of an hour."""

    item: Item
    sold: Counter[int] = field(default_factory=Counter)

    def blocked(self, taken: Taken) -> range:
        """Return the quarters of an hour that it blocks."""
        before, after = timedelta(seconds=self.item.buffer_before_seconds or 0), self.item.buffer_after_seconds or 0
        start, end = taken["starts_at"] - before, taken["ends_at"] + timedelta(seconds=after)
        return range((start - FRIDAY) // QUARTER, (end - FRIDAY) // QUARTER)

    def free(self, taken: Taken) -> int:
        """Return how many units are free throughout."""
        assert self.item.capacity
        return self.item.capacity - max(self.sold[place] for place in self.blocked(taken))

    def take(self, taken: Taken) -> None:
        self._add(taken, taken["quantity"])

    def give_back(self, taken: Taken) -> None:
        self._add(taken, -taken["quantity"])

    def _add(self, taken: Taken, units: int) -> None:
        for place in self.blocked(taken):
            self.sold[place] += units


def replay(cluster: Cluster, item: Item) -> tuple[Ledger, Sequence[Ledger]]:
    """Do again, one after another, all that was decided for a calendar. Each decision must have been possible.

    Ids of the history are given under the lock of the calendar, or before time is given back, so they are in the order
    of the decisions. Return what is sold in the end, and after each decision.
    """
    ledger, before = Ledger(item), []
    taken: dict[UUID, Taken] = {}
    for entry, now in _decisions(cluster, item):
        before.append(Ledger(item, ledger.sold.copy()))
        if entry.reservation_id in taken:
            ledger.give_back(taken.pop(entry.reservation_id))
        if entry.to_status not in FREE:
            assert now["quantity"] <= ledger.free(now), f"{entry.reservation_id} did not fit: {now}"
            ledger.take(now)
            taken[entry.reservation_id] = now
    return ledger, [*before, ledger]


def _decisions(cluster: Cluster, item: Item) -> Iterator[tuple[Row[Any], Taken]]:
    """Yield the entries of the history of a calendar's reservations, with what each takes from then on."""
    entries = select(history).join(reservations, reservations.c.id == history.c.reservation_id)
    of_item = reservations.c.item_id == item.id
    with cluster.db.begin() as session:
        noted = session.execute(entries.where(of_item).order_by(history.c.id)).all()
        now = {row.id: {name: getattr(row, name) for name in FIELDS} for row in session.execute(select(reservations))}
    after = []
    # Backwards from what there is now: an entry says what it has changed.
    for entry in reversed(noted):
        after.append((entry, dict(now[entry.reservation_id])))
        if entry.kind == Kind.CHANGED:
            now[entry.reservation_id] |= {name: _value(change["from"]) for name, change in entry.details.items()}
    yield from reversed(after)


def _value(noted: object) -> object:
    return datetime.fromisoformat(noted) if isinstance(noted, str) else noted


def check_sold(cluster: Cluster, item: Item) -> Sequence[Ledger]:
    """Check that what is taken of a calendar is what one decision after another has sold. Return each ledger."""
    ledger, ledgers = replay(cluster, item)
    stored: Counter[int] = Counter()
    with cluster.db.begin() as session:
        for row in session.execute(select(occupancies).where(occupancies.c.item_id == item.id)):
            for place in range((row.blocked_from - FRIDAY) // QUARTER, (row.blocked_until - FRIDAY) // QUARTER):
                stored[place] += row.units
    assert +stored == +ledger.sold
    assert max(stored.values(), default=0) <= (item.capacity or 0)
    return ledgers
