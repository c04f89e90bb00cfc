"""Pruning the feed: always a first part of it, so that no reader misses events without noticing."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

from domain import feed
from domain.runtime.pruning import BEGINNING, PRUNE_BATCH, Pruned
from tests.support.builders import Db
from tests.support.feed import appended, feed_rows, grown_old, many_events, positions
from tests.support.waiting import wait_until_blocked

MONTH = timedelta(days=30)


def pruned(db: Db, after: datetime = BEGINNING) -> Pruned:
    with db.begin() as session:
        return feed.prune(session, after, older_than=MONTH)


def test_an_empty_feed_has_nothing_to_prune(db: Db) -> None:
    assert pruned(db) == (0, None)


def test_events_that_were_appended_longer_ago_are_deleted(db: Db) -> None:
    appended(db, 5)
    grown_old(db, up_to=3)

    assert pruned(db) == (3, None)
    assert positions(db) == [4, 5]


def test_the_newest_event_stays_however_old_it_is_and_positions_do_not_begin_anew(db: Db) -> None:
    appended(db, 3)
    grown_old(db, up_to=3)

    assert [pruned(db), pruned(db)] == [(2, None), (0, None)]
    appended(db)

    assert positions(db) == [3, 4]


def test_batches_follow_each_other(db: Db) -> None:
    many_events(db, PRUNE_BATCH + 10)
    grown_old(db, up_to=PRUNE_BATCH + 7)
    (moment,) = {one.appended_at for one in feed_rows(db)[:PRUNE_BATCH]}

    assert pruned(db) == (PRUNE_BATCH, moment)
    assert pruned(db, moment) == (7, None)
    assert positions(db) == [PRUNE_BATCH + 8, PRUNE_BATCH + 9, PRUNE_BATCH + 10]


def test_two_transactions_that_prune_at_the_same_time_leave_no_hole(db: Db) -> None:
    many_events(db, 2 * PRUNE_BATCH + 10)
    grown_old(db, up_to=2 * PRUNE_BATCH)

    with ThreadPoolExecutor(1) as elsewhere, db() as session:
        assert feed.prune(session, older_than=MONTH).deleted == PRUNE_BATCH
        other = elsewhere.submit(pruned, db)
        try:
            wait_until_blocked(db)
        finally:
            visible = positions(db)
            session.commit()
        assert other.result().deleted == PRUNE_BATCH

    assert visible == list(range(1, 2 * PRUNE_BATCH + 11))
    assert positions(db) == list(range(2 * PRUNE_BATCH + 1, 2 * PRUNE_BATCH + 11))
