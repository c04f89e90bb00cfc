"""Lists of what is one's own: nothing in them, their pages and cursors included, comes from reservations of others."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from sqlalchemy import insert

from domain import reservations
from domain.access import EVERYTHING, Reach
from domain.reservations import Filter, Window
from domain.reservations.lifecycle import Status
from domain.reservations.queries import MAX_OVERDUE, MAX_PASSED_OVER
from domain.reservations.streaming import stream
from domain.reservations.table import reservation_lines
from domain.reservations.table import reservations as table
from domain.runtime.identity import new_ids
from tests.support.builders import FRIDAY, Db, a_calendar

#: So few reservations fit on a page that others' would be passed over at once.
LIMIT = 2

#: More than a page passes over.
MANY = MAX_PASSED_OVER + LIMIT + 50

LONG_AGO = datetime(2026, 1, 1, 12, tzinfo=UTC)

MINUTE = timedelta(minutes=1)

#: The value of each column by which a reservation belongs to the reader, and the value with others.
MINE = {"guest_id": "ann", "venue": "lisbon", "provider": "rita"}
OTHERS = {"guest_id": "bob", "venue": "porto", "provider": "rui"}

REACHES = {
    "guest_id": Reach(guest_id="ann"),
    "venue": Reach(venues=frozenset({"lisbon", "braga"})),
    "provider": Reach(providers=frozenset({"rita"})),
}

WINDOW = Window(ends_after=FRIDAY - timedelta(days=700), starts_before=FRIDAY + timedelta(days=700))


class Place(NamedTuple):
    """The calendar that all reserve, and another one."""

    item_id: int
    other_id: int


class PageRead(NamedTuple):
    """What a reader sees of a page."""

    ids: Sequence[UUID]
    cursor: UUID | None


@pytest.fixture
def place(db: Db) -> Place:
    return Place(a_calendar(db).id, a_calendar(db).id)


def write(
    db: Db, place: Place, count: int, owners: Mapping[str, str | None], moment: datetime = LONG_AGO, source: str = "csv"
) -> list[UUID]:
    """Write as many of each kind: confirmed ones, holds, overdue holds, and baskets. Return their ids."""
    now = datetime.now(UTC)
    kinds: Sequence[dict[str, Any]] = (
        {"status": Status.CONFIRMED, "expires_at": None},
        {"status": Status.PENDING, "expires_at": now + timedelta(hours=9)},
        {"status": Status.PENDING, "expires_at": now - timedelta(hours=9)},
        {"status": Status.CONFIRMED, "expires_at": None, "item_id": place.other_id, "line_count": 2},
    )
    times = {"starts_at": FRIDAY, "ends_at": FRIDAY + 9 * MINUTE}
    usual = {"item_id": place.item_id, "quantity": 1, "source": source, "line_count": 1, **times, **owners}
    rows = [
        {**usual, **kind, "id": next(new_ids(made)), "created_at": made}
        for number, kind in product(range(count), kinds)
        for made in [moment + number * MINUTE]
    ]
    baskets = [row for row in rows if row["line_count"] == 2]
    line = {"position": 2, "item_id": place.item_id, "quantity": 1, **times}
    with db.begin() as session:
        session.execute(insert(table), rows)
        session.execute(insert(reservation_lines), [{**line, "reservation_id": row["id"]} for row in baskets])
    return [row["id"] for row in rows]


def write_others(db: Db, place: Place, owner: str) -> None:
    """Write more reservations of others than any list passes over, before and after the reader's own."""
    for moment in (LONG_AGO - timedelta(days=30), LONG_AGO + timedelta(days=30)):
        write(db, place, MANY, OTHERS, moment)
        write(db, place, 20, {**OTHERS, owner: None}, moment)
    overdue = {"status": Status.PENDING, "expires_at": LONG_AGO, "item_id": place.item_id, "quantity": 1}
    with db.begin() as session:
        ids = (next(new_ids(LONG_AGO + number * MINUTE)) for number in range(MAX_OVERDUE + 1))
        session.execute(insert(table), [{**overdue, **OTHERS, "source": "csv", "id": one} for one in ids])


def filters(place: Place, owner: str) -> Iterator[dict[str, Any]]:
    """Yield every combination of filters by values of others, and by the owner itself."""
    choices: Mapping[str, Sequence[Any]] = {
        "status": (Status.CONFIRMED, Status.PENDING, Status.EXPIRED, Status.NO_SHOW),
        "item_id": (place.item_id,),
        "source": ("csv",),
        **{name: (OTHERS[name],) for name in OTHERS if name != owner},
        owner: (MINE[owner], OTHERS[owner]),
    }
    for values in product(*((None, *some) for some in choices.values())):
        asked = {name: value for name, value in zip(choices, values, strict=True) if value is not None}
        # Who has several venues says which one the list is of.
        if owner != "venue" or "venue" in asked:
            yield asked


def pages(db: Db, reach: Reach, asked: Mapping[str, Any], *, limit: int = LIMIT) -> list[PageRead]:
    """Return the pages of a list, to its end."""
    found, before_id = [], None
    while True:
        with db.begin() as session:
            page = reservations.find(session, Filter(**asked), before_id=before_id, limit=limit, reach=reach)
        before_id = page.next_before
        found.append(PageRead([one.id for one in page.reservations], before_id))
        if before_id is None:
            return found


def window_pages(db: Db, reach: Reach, asked: Mapping[str, Any], *, limit: int = LIMIT) -> list[PageRead]:
    """Return the pages of a list of what overlaps a window, to its end."""
    found, after = [], None
    while True:
        with db.begin() as session:
            page = reservations.find_overlapping(
                session, Filter(**asked), WINDOW, after=after, limit=limit, reach=reach
            )
        after = page.next_after
        found.append(PageRead([one.id for one in page.reservations], after and after[1]))
        if after is None:
            return found


def streamed(db: Db, reach: Reach, asked: Mapping[str, Any], sku: str) -> list[UUID]:
    given = {name: value for name, value in asked.items() if name not in ("item_id", "source")}
    wanted = Filter(**given, sku=sku if "item_id" in asked else None)
    with db.begin() as session:
        return [one.id for part in stream(session, wanted, WINDOW, size=100, reach=reach) for one in part]


def ids(read: Sequence[PageRead]) -> list[UUID]:
    return [one for page in read for one in page.ids]


LISTS = (pages, window_pages)


@pytest.mark.parametrize("listed", LISTS)
@pytest.mark.parametrize("owner", MINE)
def test_no_page_and_no_cursor_depends_on_reservations_of_others(db: Db, place: Place, owner: str, listed: Any) -> None:
    own = {*write(db, place, 3, {**OTHERS, owner: MINE[owner]})}
    alone = [(asked, listed(db, REACHES[owner], asked)) for asked in filters(place, owner)]

    write_others(db, place, owner)

    assert any(len(read) > 1 for _, read in alone)
    for asked, read in alone:
        assert listed(db, REACHES[owner], asked) == read, asked
        assert {one.cursor for one in read} <= own | {None}, asked


@pytest.mark.parametrize("listed", LISTS)
@pytest.mark.parametrize("owner", MINE)
def test_what_is_ones_own_is_listed_as_it_is_for_those_who_may_see_everything(
    db: Db, place: Place, owner: str, listed: Any
) -> None:
    write(db, place, 5, {**OTHERS, owner: MINE[owner]})
    write(db, place, 5, OTHERS, LONG_AGO + 7 * MINUTE)

    for asked in filters(place, owner):
        is_own = asked.get(owner) in (None, MINE[owner])
        everything = ids(listed(db, EVERYTHING, asked | {owner: MINE[owner]}, limit=100))

        assert ids(listed(db, REACHES[owner], asked)) == (everything if is_own else []), asked


@pytest.mark.parametrize("listed", LISTS)
@pytest.mark.parametrize("owner", MINE)
def test_where_ones_own_reservations_are_passed_over_the_cursor_names_one_of_them(
    db: Db, place: Place, owner: str, listed: Any
) -> None:
    mine = {**OTHERS, owner: MINE[owner]}
    wanted = {*write(db, place, 1, mine)}
    passed_over = {*write(db, place, MANY, mine, LONG_AGO + MINUTE, source="api")}
    write_others(db, place, owner)
    asked = {owner: MINE[owner], "item_id": place.item_id, "source": "csv"} | {
        name: OTHERS[name] for name in OTHERS if name != owner
    }

    read = listed(db, REACHES[owner], asked)

    assert {*ids(read)} == wanted
    assert {one.cursor for one in read} <= wanted | passed_over | {None}


@pytest.mark.parametrize("owner", MINE)
def test_a_stream_of_ones_own_has_nothing_of_others(db: Db, owner: str) -> None:
    place = Place(a_calendar(db, sku="room").id, a_calendar(db).id)
    write(db, place, 3, {**OTHERS, owner: MINE[owner]})
    every = [asked for asked in filters(place, owner) if "source" not in asked]
    alone = [streamed(db, REACHES[owner], asked, "room") for asked in every]

    write_others(db, place, owner)

    assert [streamed(db, REACHES[owner], asked, "room") for asked in every] == alone
    assert any(alone)


def test_who_is_guest_and_host_reads_either_list_without_others(db: Db, place: Place) -> None:
    both = Reach(guest_id="ann", venues=frozenset({"lisbon"}))
    write(db, place, 3, {**OTHERS, "guest_id": "ann"})
    write(db, place, 3, {**OTHERS, "venue": "lisbon"}, LONG_AGO + MINUTE)
    every = [
        {**named, **more}
        for named in ({"guest_id": "ann"}, {"venue": "lisbon"}, {"venue": "porto"}, {"guest_id": "bob"})
        for more in ({}, {"item_id": place.item_id}, {"source": "csv"}, {"provider": "rui"})
    ]
    alone = [listed(db, both, asked) for asked, listed in product(every, LISTS)]

    write_others(db, place, "provider")

    assert [listed(db, both, asked) for asked, listed in product(every, LISTS)] == alone
