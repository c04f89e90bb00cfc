"""Expiry: holds that were not confirmed in time give their stock back, the longest overdue first."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import update

from domain import reservations
from domain.items import Item
from domain.reservations import Reservation
from domain.reservations.expiry import take_back
from domain.reservations.lifecycle import Status
from domain.reservations.table import reservations as table
from tests.support.builders import (
    ROUTES,
    Db,
    a_hold,
    a_request,
    an_item,
    an_overdue_hold,
    available,
    reserve,
    stored_as,
)
from worker import maintenance


def an_old_hold(db: Db, item: Item, minutes: int) -> Reservation:
    """A hold that has been overdue for that many minutes."""
    hold = an_overdue_hold(db, item)
    with db.begin() as session:
        ended = hold.created_at - timedelta(minutes=minutes)
        session.execute(update(table).where(table.c.id == hold.id).values(expires_at=ended))
    return hold


def many_overdue(db: Db, item: Item, count: int) -> None:
    reserve(db, *(a_request(item) for _ in range(count)))
    with db.begin() as session:
        session.execute(update(table).values(expires_at=table.c.created_at))


def expired(db: Db, limit: int = 100) -> int:
    with db.begin() as session:
        return reservations.expire(session, limit, ROUTES)


def maintained(db: Db, *, limit: float = float("inf")) -> int:
    """Run the maintenance that expires holds. Return how many it has expired."""
    return maintenance.expire(db, threading.Event(), ROUTES, limit=limit)


def expired_ids(db: Db) -> set[UUID]:
    return stored_as(db, Status.EXPIRED)


def test_an_empty_database_has_nothing_to_expire(db: Db) -> None:
    assert expired(db) == 0
    assert maintained(db) == 0


def test_an_overdue_hold_expires_and_its_stock_is_available_again(db: Db) -> None:
    item = an_item(db, quantity=10)
    an_overdue_hold(db, item, quantity=4)

    assert expired(db) == 1
    assert available(db, item) == 10


def test_a_hold_that_is_not_overdue_does_not_expire(db: Db) -> None:
    item = an_item(db, quantity=10)
    a_hold(db, item, quantity=4)

    assert expired(db) == 0
    assert available(db, item) == 6


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.PENDING])
def test_only_holds_expire(db: Db, status: Status) -> None:
    hold = an_overdue_hold(db, an_item(db))
    with db.begin() as session:
        session.execute(update(table).where(table.c.id == hold.id).values(status=status))

    assert expired(db) == 0


def test_the_longest_overdue_holds_expire_first_and_no_more_than_the_limit(db: Db) -> None:
    item = an_item(db)
    middle, oldest, newest = (an_old_hold(db, item, minutes) for minutes in (20, 30, 10))

    assert expired(db, limit=2) == 2

    assert expired_ids(db) == {oldest.id, middle.id}
    assert expired(db, limit=2) == 1
    assert newest.id in expired_ids(db)


def test_expiring_again_changes_nothing(db: Db) -> None:
    item = an_item(db, quantity=10)
    hold = an_overdue_hold(db, item, quantity=4)
    expired(db)

    assert expired(db) == 0

    with db.begin() as session:
        assert reservations.get(session, hold.id).version == 2
    assert available(db, item) == 10


def test_a_hold_that_another_transaction_has_locked_is_skipped(db: Db) -> None:
    item = an_item(db)
    locked, free = an_overdue_hold(db, item), an_overdue_hold(db, item)

    with db.begin() as holder:
        reservations.lock(holder, [locked.id])
        assert expired(db) == 1

    assert expired_ids(db) == {free.id}


def test_two_transactions_that_expire_at_the_same_time_share_the_work(db: Db) -> None:
    item = an_item(db, quantity=10)
    for _ in range(6):
        an_overdue_hold(db, item)

    with db.begin() as one:
        first = reservations.expire(one, 4, ROUTES)
        with ThreadPoolExecutor(1) as elsewhere:
            second = elsewhere.submit(expired, db)
            one.commit()

    assert first + second.result() == 6
    assert available(db, item) == 10


def test_only_the_overdue_holds_of_the_given_items_are_taken_back(db: Db) -> None:
    item, other = an_item(db), an_item(db)
    wanted, unwanted = an_overdue_hold(db, item), an_overdue_hold(db, other)

    with db.begin() as session:
        assert take_back(session, {}, ROUTES) == 0
        assert take_back(session, {item.id: 1}, ROUTES) == 1

    assert expired_ids(db) == {wanted.id}
    assert unwanted.id not in expired_ids(db)


def test_a_reserve_does_not_wait_for_a_hold_that_is_being_changed(db: Db) -> None:
    """The request has locked the item, and a change of a hold locks the hold first: waiting would be a deadlock."""
    item = an_item(db, quantity=2)
    busy, free = an_overdue_hold(db, item), an_overdue_hold(db, item)

    with db.begin() as holder:
        reservations.lock(holder, [busy.id])
        reserve(db, a_request(item))

    assert expired_ids(db) == {free.id}


def test_maintenance_expires_batch_by_batch_until_no_hold_is_overdue(db: Db) -> None:
    item = an_item(db, quantity=2_000)
    many_overdue(db, item, maintenance.EXPIRE_BATCH + 3)
    progress: list[int] = []

    done = maintenance.expire(db, threading.Event(), ROUTES, progress=progress.append)

    assert done == maintenance.EXPIRE_BATCH + 3
    assert progress == [maintenance.EXPIRE_BATCH, maintenance.EXPIRE_BATCH + 3]
    assert available(db, item) == 2_000


def test_maintenance_expires_no_more_than_its_limit(db: Db) -> None:
    many_overdue(db, an_item(db, quantity=10), 10)

    assert [maintained(db, limit=4), maintained(db, limit=4), maintained(db, limit=4)] == [4, 4, 2]


def test_maintenance_that_is_stopped_finishes_its_batch(db: Db) -> None:
    many_overdue(db, an_item(db, quantity=2_000), maintenance.EXPIRE_BATCH + 3)
    stopping = threading.Event()

    assert maintenance.expire(db, stopping, ROUTES, progress=lambda _: stopping.set()) == maintenance.EXPIRE_BATCH
    assert maintenance.expire(db, stopping, ROUTES) == 0
