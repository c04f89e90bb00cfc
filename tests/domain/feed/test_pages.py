"""Reading the feed: pages that follow each other have each wanted event once, and what was pruned is never skipped."""

import random
from collections.abc import Sequence
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from domain.feed import Filter, append, newest, pages, prune, read
from domain.runtime.errors import Invalid, PositionGone
from tests.domain.feed.test_prune import pruned
from tests.domain.outbox.test_plans import executed, planned
from tests.support.builders import Db
from tests.support.feed import (
    EVERYTHING,
    a_page,
    appended,
    feed_rows,
    grown_old,
    many_events,
    positions,
    recorded_for_feed,
)
from tests.support.outbox import an_aggregate

TYPES = ("booking.created", "booking.confirmed", "booking.cancelled", "booking.no_show")


def seen(db: Db, wanted: Filter = EVERYTHING, *, after: int | None = None, limit: int = 3) -> list[int]:
    """Read page after page until there is no more. Return the positions."""
    found: list[int] = []
    while (page := a_page(db, wanted, after=after, limit=limit)).read_up_to != after:
        found += [one.position for one in page.events]
        after = page.read_up_to
    assert a_page(db, wanted, after=after).events == []
    return found


def test_an_empty_feed_has_an_empty_page(db: Db) -> None:
    for after in (None, 0):
        page = a_page(db, after=after)
        assert (page.events, page.read_up_to) == ([], 0)
    with db.begin() as session:
        assert newest(session) == 0


@pytest.mark.parametrize("limit", [1, 3, 10, 11])
def test_pages_follow_each_other_without_gap_or_repeat(db: Db, limit: int) -> None:
    appended(db, 10)

    assert seen(db, limit=limit) == positions(db) == list(range(1, 11))
    assert seen(db, after=4, limit=limit) == list(range(5, 11))


def test_what_is_appended_later_is_on_the_next_page(db: Db) -> None:
    appended(db, 2)
    page = a_page(db)
    appended(db, 2)

    following = a_page(db, after=page.read_up_to)

    assert [one.position for one in following.events] == [3, 4]


def a_mixed_feed(db: Db) -> Sequence[Filter]:
    """A feed of several types and reservations. Return filters of all kinds."""
    chance = random.Random(7)
    aggregates = [an_aggregate() for _ in range(3)]
    for _ in range(60):
        appended(db, aggregate=chance.choice(aggregates), event_type=chance.choice(TYPES))
    types = (None, "booking.created", "booking.c*", "booking.*", "*", "*_show")
    return [Filter(type=one, aggregate_id=of) for one in types for of in (None, aggregates[0], an_aggregate())]


def test_a_filter_selects_what_it_says_page_after_page(db: Db) -> None:
    for wanted in a_mixed_feed(db):
        for limit in (1, 7, 100):
            matching = [one.position for one in feed_rows(db) if wanted.wants(one.type, one.aggregate_id)]
            assert seen(db, wanted, limit=limit) == matching
            assert seen(db, wanted, after=20, limit=limit) == [one for one in matching if one > 20]


def test_a_page_that_is_not_full_was_read_up_to_the_newest_event(db: Db) -> None:
    aggregate = an_aggregate()
    appended(db, aggregate=aggregate)
    appended(db, 5)

    page = a_page(db, Filter(aggregate_id=aggregate))

    assert ([one.position for one in page.events], page.read_up_to) == ([1], 6)


@pytest.mark.parametrize("unknown", ["booking", "booking.creat", "nothing.*", "Booking.created", ""])
def test_a_type_that_no_event_has_is_refused_and_the_types_are_named(unknown: str) -> None:
    with pytest.raises(Invalid, match=r"booking\.created"):
        Filter(type=unknown)


def test_a_type_that_only_a_newer_release_knows_is_read_as_well(db: Db) -> None:
    appended(db, 3)
    with db.begin() as session:
        session.execute(text("UPDATE feed_events SET type = 'booking.teleported' WHERE position = 2"))

    assert seen(db, Filter(type="booking.*")) == [1, 2, 3]


def test_a_reader_whose_next_event_was_pruned_is_refused_and_sees_the_oldest_position(db: Db) -> None:
    appended(db, 10)
    grown_old(db, up_to=6)
    pruned(db)

    for after in (0, 3, 5):
        for wanted in (EVERYTHING, Filter(type="booking.*"), Filter(aggregate_id=an_aggregate())):
            with pytest.raises(PositionGone) as refused:
                a_page(db, wanted, after=after)
            assert (refused.value.after, refused.value.oldest) == (after, 7)
    assert seen(db, after=6) == [7, 8, 9, 10]
    assert seen(db) == [7, 8, 9, 10]


def test_a_reader_that_has_seen_everything_continues_when_all_of_it_was_pruned(db: Db) -> None:
    appended(db, 3)
    grown_old(db, up_to=3)
    pruned(db)
    assert positions(db) == [3]

    appended(db)

    assert seen(db, after=3) == [4]


@pytest.mark.parametrize("after", [11, 10**18])
def test_a_reader_that_is_ahead_of_a_feed_that_was_made_anew_is_refused(db: Db, after: int) -> None:
    with pytest.raises(PositionGone) as refused_by_empty:
        a_page(db, after=after)
    appended(db, 10)
    grown_old(db, up_to=6)
    pruned(db)

    for wanted in (EVERYTHING, Filter(type="booking.*"), Filter(aggregate_id=an_aggregate())):
        with pytest.raises(PositionGone) as refused:
            a_page(db, wanted, after=after)
        assert (refused.value.after, refused.value.oldest) == (after, 7)
    assert (refused_by_empty.value.after, refused_by_empty.value.oldest) == (after, 1)


def test_a_page_ends_when_its_payloads_are_large(db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    appended(db, 10)
    size = len(a_page(db).events[0].payload)
    monkeypatch.setattr(pages, "MOST_BYTES", 3 * size)

    found = [a_page(db, after=after, limit=10) for after in (0, 3, 9)]

    assert [len(page.events) for page in found] == [3, 3, 1]
    assert [page.read_up_to for page in found] == [3, 6, 10]
    assert seen(db, limit=10) == list(range(1, 11))


#: Events that a page does not show, half of them before it.
MANY = 100_000

#: The filters with the index that each is to be read by. A page shows 100 events.
PLANS = {
    "everything": (EVERYTHING, "pk_feed_events"),
    "a type": (Filter(type="booking.created"), "ix_feed_events_type_position"),
    "a rare type": (Filter(type="booking.no_show"), "ix_feed_events_type_position"),
    "a pattern": (Filter(type="booking.*"), "ix_feed_events_type_position"),
    "a reservation": (Filter(aggregate_id=an_aggregate()), "ix_feed_events_aggregate_id_position"),
}

#: The pages that are read to find one event of a feed of this size. A hundred that follow are on the same few pages.
DESCENT = 5


@pytest.fixture(params=["with statistics", "with those of an empty table"])
def large_feed(db: Db, request: pytest.FixtureRequest) -> Db:
    many_events(db, MANY)
    with db.begin() as session:
        session.execute(text("ANALYZE feed_events"))
        if request.param != "with statistics":
            session.execute(text("UPDATE pg_class SET relpages = 100, reltuples = 0 WHERE relname ~ 'feed_events'"))
    return db


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANS)
def test_a_page_of_a_large_feed_reads_about_what_it_shows(large_feed: Db, name: str) -> None:
    wanted, index = PLANS[name]

    def a_hundred(session: Session) -> object:
        return read(session, wanted, after=MANY // 2, limit=100)

    plan = executed(large_feed, a_hundred)

    assert index in plan.indexes
    assert plan.pages <= 10 * DESCENT
    assert index in planned(large_feed, a_hundred).indexes


@pytest.mark.slow
def test_a_large_feed_costs_nothing_when_events_are_appended(large_feed: Db) -> None:
    ids = recorded_for_feed(large_feed, *(an_aggregate() for _ in range(100)))

    plan = executed(large_feed, lambda session: append(session, ids))

    # Each event is looked for by its id, read in the outbox, and written with its five indexes.
    assert plan.pages <= 100 * (2 + 5 + 1) * DESCENT


@pytest.mark.slow
def test_a_large_feed_costs_nothing_when_there_is_nothing_to_prune(large_feed: Db) -> None:
    plan = executed(large_feed, lambda session: prune(session, older_than=timedelta(days=30)))

    assert plan.pages <= 4 * DESCENT
