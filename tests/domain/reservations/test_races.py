"""Extensions of holds at once with each other, with changes of status, and with maintenance that expires them."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import func, select, text

from domain import reservations
from domain.idempotency import Answered
from domain.items import Item
from domain.reservations import Extension, Reservation, Wanted
from domain.reservations.lifecycle import Status
from domain.runtime.errors import HoldExpired, SoldOut, StaleVersion, WrongStatus
from tests.domain.reservations.test_changes import HOUR, changed, read
from tests.support.builders import Db, a_request, an_item, an_overdue_hold, available, reserve, routes_of
from tests.support.invariants import violations
from tests.support.outbox import rows
from tests.support.waiting import wait_until


def a_racing_hold(db: Db, item: Item, *, lasting: timedelta = HOUR) -> Reservation:
    """A hold that several transactions will want to change."""
    reserve(db, a_request(item, hold_for=lasting))
    with db.begin() as session:
        return reservations.find(session, reservations.Filter(item_id=item.id), limit=1).reservations[0]


def test_two_extensions_at_once_follow_each_other_and_the_longer_one_counts(db: Db) -> None:
    hold = a_racing_hold(db, an_item(db))

    with ThreadPoolExecutor(2) as threads:
        lasting = [timedelta(days=2), timedelta(days=1)]
        answers = list(threads.map(lambda one: changed(db, hold, Extension(one)), lasting))

    after = read(db, hold)
    longer, shorter = answers
    assert isinstance(longer, Reservation) and isinstance(shorter, Reservation)
    assert after.expires_at == longer.expires_at == longer.updated_at + lasting[0]
    # The shorter one came second and found that the hold lasts for long enough, or it came first and was made longer.
    assert (shorter.version, after.version) in {(2, 2), (2, 3)}
    assert len(rows(db)) == 2 + after.version - 1


def test_of_two_extensions_that_name_the_same_version_one_wins(db: Db) -> None:
    holds = [a_racing_hold(db, an_item(db)) for _ in range(10)]

    def extend(days: int) -> list[object]:
        return [extended_from_the_first_version(db, one, timedelta(days=days)) for one in holds]

    with ThreadPoolExecutor(2) as threads:
        longer, shorter = threads.map(extend, [2, 1])

    # The shorter one is refused, or comes first, or finds that the hold lasts for long enough.
    for one, other, hold in zip(longer, shorter, holds, strict=True):
        assert isinstance(one, Reservation) or isinstance(other, Reservation)
        assert isinstance(one, Reservation | StaleVersion) and isinstance(other, Reservation | StaleVersion)
        assert read(db, hold).version == 2


def extended_from_the_first_version(db: Db, one: Reservation, lasting: timedelta) -> object:
    try:
        return changed(db, one, Extension(lasting), expected_version=1)
    except StaleVersion as error:
        return error


@pytest.mark.parametrize("to", [Status.CONFIRMED, Status.CANCELLED, Status.REJECTED])
def test_an_extension_and_a_change_of_status_at_once_leave_what_the_status_says(db: Db, to: Status) -> None:
    """Whoever comes second sees the other's change: an extension is refused, or was made before."""
    item = an_item(db, quantity=20)
    holds = [a_racing_hold(db, item) for _ in range(20)]

    def change(wanted: Wanted) -> list[object]:
        return [changed(db, one, wanted) for one in holds]

    with ThreadPoolExecutor(2) as threads:
        extended, ended = threads.map(change, [Extension(timedelta(days=1)), to])

    for hold, longer, after in zip(holds, extended, ended, strict=True):
        assert isinstance(longer, Reservation | WrongStatus)
        assert isinstance(after, Reservation) and after == read(db, hold) and after.status is to
        assert after.version == (3 if isinstance(longer, Reservation) else 2)
    assert available(db, item) == (0 if to is Status.CONFIRMED else 20)
    assert violations(db) == {}


def test_an_extension_that_waits_for_maintenance_finds_the_hold_expired(db: Db) -> None:
    item = an_item(db, quantity=10)
    hold = an_overdue_hold(db, item)

    with ThreadPoolExecutor(1) as threads:
        with db.begin() as session:
            assert reservations.expire(session, 10, routes_of(db)) == 1
            waiting = threads.submit(changed, db, hold, Extension(HOUR))
            wait_until("the extension waits for the lock", lambda: is_waiting(db))
        outcome = waiting.result()

    assert isinstance(outcome, HoldExpired)
    assert (read(db, hold).version, available(db, item)) == (2, 10)
    assert violations(db) == {}


def test_maintenance_passes_over_a_hold_that_is_being_extended(db: Db) -> None:
    """The hold lapses while the extension is not committed. Whoever looks later sees the new time."""
    item = an_item(db, quantity=1)
    hold = a_racing_hold(db, item, lasting=timedelta(seconds=1))
    with db.begin() as session:
        extended = reservations.change(session, hold.id, Extension(HOUR), routes=routes_of(db))
        session.execute(select(func.pg_sleep_until(hold.expires_at)))
        with db.begin() as maintenance:
            assert reservations.expire(maintenance, 10, routes_of(db)) == 0
        with db.begin() as other:
            (short,) = reservations.reserve(other, [a_request(item)], routes_of(db))

    with db.begin() as session:
        assert reservations.expire(session, 10, routes_of(db)) == 0
    assert not isinstance(short, Answered)
    assert read(db, hold) == extended
    assert isinstance(reserve(db, a_request(item))[0], SoldOut)


def is_waiting(db: Db) -> bool:
    with db.begin() as session:
        return bool(session.execute(text("SELECT count(*) FROM pg_locks WHERE NOT granted")).scalar_one())
