"""Reading reservations: every filter and all of them together, page by page, and overdue holds as what they are."""

import json
import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import insert, select, text, update

from domain import reservations
from domain.reservations import Filter, Page, Reservation
from domain.reservations.lifecycle import Status
from domain.reservations.queries import MAX_OVERDUE, MAX_PAGE_BYTES, MAX_PASSED_OVER
from domain.reservations.table import reservations as table
from domain.runtime.errors import UnknownReservation
from domain.runtime.identity import new_ids
from tests.support.builders import Db, a_hold, a_request, an_item, an_overdue_hold, reserve

#: When the first of the reservations that a test writes by itself was made.
LONG_AGO = datetime(2026, 1, 1, 12, 0, 0, 999_500, tzinfo=UTC)

MICROSECOND = timedelta(microseconds=1)

HOUR = timedelta(hours=1)


def got(db: Db, reservation_id: UUID) -> Reservation:
    with db.begin() as session:
        return reservations.get(session, reservation_id)


def page(db: Db, *, before_id: UUID | None = None, limit: int = 100, **wanted: Any) -> Page:
    with db.begin() as session:
        return reservations.find(session, Filter(**wanted), before_id=before_id, limit=limit)


def pages(db: Db, *, limit: int, **wanted: Any) -> Iterator[Page]:
    """Read a list to its end."""
    one = page(db, limit=limit, **wanted)
    yield one
    while one.next_before is not None:
        one = page(db, limit=limit, before_id=one.next_before, **wanted)
        yield one


def listed(db: Db, *, limit: int = 100, **wanted: Any) -> list[UUID]:
    """Return the ids of a whole list."""
    return [one.id for read in pages(db, limit=limit, **wanted) for one in read.reservations]


def rows(count: int, item_id: int, moment: datetime = LONG_AGO, **fields: Any) -> list[dict[str, Any]]:
    """Return rows of confirmed reservations, of one microsecond each."""
    moments = (moment + number * MICROSECOND for number in range(count))
    row: dict[str, Any] = {"item_id": item_id, "quantity": 1, "status": Status.CONFIRMED} | fields
    return [row | {"id": next(new_ids(made)), "created_at": made} for made in moments]


def written(db: Db, rows: Sequence[dict[str, Any]]) -> list[UUID]:
    """Write rows with the same fields. Return their ids, the newest first."""
    with db.begin() as session:
        return sorted(session.execute(insert(table).returning(table.c.id), rows).scalars(), reverse=True)


def test_a_reservation_is_read_by_its_id(db: Db) -> None:
    hold = a_hold(db, an_item(db))

    assert got(db, hold.id) == hold
    with pytest.raises(UnknownReservation):
        got(db, uuid4())


# --- overdue holds ----------------------------------------------------------------------------------------------------


def test_an_overdue_hold_is_read_as_expired_before_maintenance_has_seen_it(db: Db) -> None:
    item = an_item(db)
    hold, overdue = a_hold(db, item), an_overdue_hold(db, item)

    assert (overdue.status, overdue.version) == (Status.PENDING, 1)
    assert (got(db, overdue.id).status, got(db, overdue.id).version) == (Status.EXPIRED, 1)
    assert got(db, hold.id).status is Status.PENDING
    assert [one.status for one in page(db).reservations] == [Status.EXPIRED, Status.PENDING]


def test_a_reservation_that_was_confirmed_in_time_stays_confirmed(db: Db) -> None:
    (confirmed,) = written(db, rows(1, an_item(db).id, expires_at=LONG_AGO))

    assert got(db, confirmed).status is Status.CONFIRMED
    assert listed(db, status=Status.EXPIRED) == []


def test_overdue_holds_are_listed_among_the_expired_reservations_and_not_among_the_pending_ones(db: Db) -> None:
    item = an_item(db, quantity=20)
    made = [(a_hold if number % 3 else an_overdue_hold)(db, item).id for number in range(9)]
    with db.begin() as session:
        session.execute(update(table).where(table.c.id.in_(made[1::3])).values(status=Status.EXPIRED))
    expired, pending = sorted([*made[0::3], *made[1::3]], reverse=True), made[::-1][0::3]

    for limit in (1, 2, 4, 100):
        assert listed(db, limit=limit, status=Status.EXPIRED) == expired
        assert listed(db, limit=limit, status=Status.PENDING) == pending
        assert listed(db, limit=limit, status=Status.PENDING, item_id=item.id) == pending


def test_a_hold_lapses_at_the_moment_at_which_it_expires(db: Db) -> None:
    hold = a_hold(db, an_item(db))

    with db.begin() as session:
        # The statement is later than this moment, if only by microseconds.
        session.execute(update(table).values(expires_at=text("clock_timestamp()")))

    assert listed(db, status=Status.EXPIRED) == [hold.id]
    assert listed(db, status=Status.PENDING) == []


@pytest.mark.slow
@pytest.mark.parametrize("wanted", [Status.PENDING, Status.EXPIRED])
def test_after_an_outage_of_maintenance_a_list_is_read_to_its_end_in_pages_of_bounded_work(
    db: Db, wanted: Status
) -> None:
    """More holds are overdue than are read at once: a page may be short, but no reservation is left out."""
    item = an_item(db)
    overdue = {"status": Status.PENDING, "expires_at": LONG_AGO}
    in_time = {"status": Status.PENDING, "expires_at": datetime.now(UTC) + HOUR}
    parts = [
        rows(10, item.id, LONG_AGO - HOUR, **in_time),
        rows(5, item.id, LONG_AGO - HOUR, status=Status.EXPIRED, expires_at=LONG_AGO),
        rows(MAX_OVERDUE + 50, item.id, LONG_AGO, **overdue),
        rows(MAX_PASSED_OVER + 200, item.id, LONG_AGO + HOUR, **in_time),
    ]
    oldest, expired, lapsed, newest = (written(db, part) for part in parts)
    expected = [*newest, *oldest] if wanted is Status.PENDING else [*lapsed, *expired]

    for narrowing in ({}, {"item_id": item.id}, {"source": "api"}):
        read = list(pages(db, limit=1_000, status=wanted, **narrowing))
        assert [one.id for each in read for one in each.reservations] == expected
        assert any(len(each.reservations) < 1_000 for each in read[:-1])


# --- filters ----------------------------------------------------------------------------------------------------------

STATUSES = (Status.PENDING, Status.CONFIRMED, Status.EXPIRED, Status.NO_SHOW)
GUESTS = ("guest-1", "guest-2", None)
SOURCES = ("api", "csv")

#: The moment that is in the middle of the reservations below.
MIDDLE = LONG_AGO + 200 * MICROSECOND


@pytest.fixture
def mixed(db: Db) -> Sequence[Reservation]:
    """Reservations with all kinds of fields, the newest first. Overdue holds have the status that they have by now."""
    dice = random.Random(7)
    item_ids = [an_item(db, sku=f"ROOM-{number}").id for number in range(3)]
    made = rows(400, item_ids[0])
    for row in made:
        row["item_id"] = dice.choice(item_ids)
        row["status"] = dice.choice(STATUSES)
        row["expires_at"] = datetime.now(UTC) + dice.choice([-HOUR, HOUR])
        row["guest_id"] = dice.choice(GUESTS)
        row["source"] = dice.choice(SOURCES)
    return [got(db, one) for one in written(db, made)]


WANTED: dict[str, Sequence[Any]] = {
    "status": (None, *STATUSES),
    "item_id": (None, 1, 99),
    "sku": (None, "ROOM-1", "no such sku"),
    "guest_id": (None, "guest-1", "nobody"),
    "source": (None, "csv", "nowhere"),
    "since": (None, MIDDLE),
    "before": (None, MIDDLE + 100 * MICROSECOND),
}


@pytest.mark.slow
@pytest.mark.parametrize("status", WANTED["status"])
def test_every_combination_of_filters_lists_what_matches_and_nothing_else(
    db: Db, mixed: Sequence[Reservation], status: Status | None
) -> None:
    others = [name for name in WANTED if name != "status"]
    for values in product(*(WANTED[name] for name in others)):
        wanted = {"status": status, **dict(zip(others, values, strict=True))}
        expected = [one.id for one in mixed if matches(one, wanted)]
        assert listed(db, limit=30, **wanted) == expected, wanted


def matches(one: Reservation, wanted: dict[str, Any]) -> bool:
    since, before = wanted["since"] or LONG_AGO, wanted["before"] or datetime.max.replace(tzinfo=UTC)
    named = all(wanted[name] in (None, getattr(one, name)) for name in WANTED if name not in ("since", "before"))
    return named and since <= one.created_at < before


@pytest.mark.parametrize("limit", [1, 7, 400])
def test_pages_of_any_size_make_the_same_list(db: Db, mixed: Sequence[Reservation], limit: int) -> None:

    assert listed(db, limit=limit) == [one.id for one in mixed]
    for read in pages(db, limit=limit, source="csv"):
        assert len(read.reservations) == limit or read.next_before is None


def test_a_list_shows_each_reservation_as_it_is_read_alone(db: Db, mixed: Sequence[Reservation]) -> None:

    assert page(db, limit=1_000).reservations == mixed
    assert page(db, status=Status.CONFIRMED, limit=1_000).reservations == [
        one for one in mixed if one.status is Status.CONFIRMED
    ]


def test_the_time_of_making_bounds_a_list_to_the_microsecond(db: Db) -> None:
    third, second, first = written(db, rows(3, an_item(db).id))

    assert listed(db, since=LONG_AGO + MICROSECOND) == [third, second]
    assert listed(db, before=LONG_AGO + MICROSECOND) == [first]
    assert listed(db, since=LONG_AGO + MICROSECOND, before=LONG_AGO + 2 * MICROSECOND) == [second]


@pytest.mark.parametrize("year", [1, 9999])
def test_a_list_may_be_bounded_by_any_time(db: Db, year: int) -> None:
    hold = a_hold(db, an_item(db))
    moment = datetime(year, 1, 1, tzinfo=UTC)

    assert listed(db, since=moment) == ([hold.id] if year == 1 else [])
    assert listed(db, before=moment) == ([] if year == 1 else [hold.id])


def test_a_sku_and_the_id_of_another_item_have_no_reservation_in_common(db: Db) -> None:
    item, other = an_item(db), an_item(db)
    hold = a_hold(db, item)

    assert listed(db, sku=item.sku, item_id=item.id) == [hold.id]
    assert listed(db, sku=item.sku, item_id=other.id) == []


def test_reservations_that_match_two_of_three_filters_are_passed_over_in_pages_of_bounded_work(db: Db) -> None:
    item = an_item(db)
    csv: dict[str, Any] = {"guest_id": "guest-1", "source": "csv"}
    oldest = written(db, rows(3, item.id, LONG_AGO - HOUR, **csv))
    written(db, rows(MAX_PASSED_OVER + 50, item.id, guest_id="guest-1", source="api"))
    newest = written(db, rows(3, item.id, LONG_AGO + HOUR, **csv))

    read = list(pages(db, limit=10, item_id=item.id, **csv))

    assert [one.id for each in read for one in each.reservations] == [*newest, *oldest]
    assert len(read[0].reservations) == 3


# --- order ------------------------------------------------------------------------------------------------------------


def test_the_reservations_of_one_set_are_listed_in_order_of_arrival_the_newest_first(db: Db) -> None:
    item = an_item(db, quantity=300)

    reserve(db, *(a_request(item, note=str(number)) for number in range(256)))

    assert [one.note for one in page(db, limit=256).reservations] == [str(number) for number in range(256)][::-1]


def test_an_id_contains_the_time_of_the_database_at_which_it_was_made(db: Db) -> None:
    hold = a_hold(db, an_item(db))

    assert hold.id.int >> 80 == int(hold.created_at.timestamp() * 1_000)


# --- metadata ---------------------------------------------------------------------------------------------------------

WRITTEN = '{ "a": 1e308,\n "b": [-0.0, 1E-400, 10000000000000000000000], "a": "ü", "c": "\\u00fc" }'


def test_metadata_is_read_as_it_was_written(db: Db) -> None:
    reserve(db, a_request(an_item(db), metadata=WRITTEN))

    (hold,) = page(db).reservations
    with db.begin() as session:
        (locked,) = reservations.lock(session, [hold.id])

    assert hold.metadata == got(db, hold.id).metadata == locked.metadata == WRITTEN


def test_the_release_before_reads_the_metadata_that_this_one_writes_and_the_other_way_round(db: Db) -> None:
    item = an_item(db)
    reserve(db, a_request(item, metadata=WRITTEN))
    (theirs,) = written(db, rows(1, item.id, metadata={"cart": "c-7"}))

    with db.begin() as session:
        (ours,) = session.execute(select(table.c.metadata).where(table.c.id != theirs)).scalars()

    assert ours == json.loads(WRITTEN)
    assert got(db, theirs).metadata == '{"cart": "c-7"}'
    assert [one.metadata for one in page(db).reservations] == [WRITTEN, '{"cart": "c-7"}']


@pytest.mark.parametrize("column", ["metadata_text", "note", "cancellation_reason", "metadata"])
def test_a_page_ends_when_its_texts_have_a_megabyte(db: Db, column: str) -> None:
    size = 16_000
    # As jsonb, it is a hundredth of that.
    long: Any = [10**308] * (size // 310) if column == "metadata" else "x" * size
    made = written(db, rows(MAX_PAGE_BYTES // size + 20, an_item(db).id, **{column: long}))

    first, second = pages(db, limit=1_000)

    assert [one.id for one in (*first.reservations, *second.reservations)] == made
    assert MAX_PAGE_BYTES // size <= len(first.reservations) <= MAX_PAGE_BYTES // size + 2


def test_a_page_has_a_reservation_however_long_its_texts_are(db: Db) -> None:
    made = written(db, rows(3, an_item(db).id, note="x" * (MAX_PAGE_BYTES + 1)))

    assert [len(read.reservations) for read in pages(db, limit=10)] == [1, 1, 1, 0]
    assert listed(db, limit=10) == made
