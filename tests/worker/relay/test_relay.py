"""Draining: in order for each aggregate, each promise once, and no trouble of one row is that of another."""

import time
from datetime import datetime
from threading import Event, Thread

from sqlalchemy import select, update

from domain import outbox
from domain.outbox import Delivered, Failed, Outcome, Refused, Rejected, Row
from domain.outbox.table import destinations, lanes
from tests.conftest import OpenDrain
from tests.support.builders import Db, an_event, recorded
from tests.support.outbox import (
    NOT_NOW,
    Outside,
    Troubled,
    an_aggregate,
    claimed,
    promised,
    row,
    rows,
    standing,
    time_passes,
)
from tests.support.serving import wait_until
from worker.relay.relay import SLICE_SECONDS, Tally


def test_an_empty_outbox_is_drained_at_once(drain_of: OpenDrain) -> None:
    assert drain_of(Outside()).run() == Tally()


def test_everything_due_is_delivered_once_and_marked(drain_of: OpenDrain) -> None:
    shop = Outside()
    drain = drain_of(shop)
    ids = promised(drain.db, *(an_aggregate(number % 32) for number in range(100)))

    tally = drain.run()

    assert sorted(shop.called) == ids
    assert tally == Tally(delivered=100)
    assert set(standing(drain.db)) == {"processed"}
    assert drain.run() == Tally()


def test_the_events_of_one_aggregate_leave_in_order_whatever_the_size_of_a_batch(drain_of: OpenDrain) -> None:
    shop = Outside(concurrency=4)
    drain = drain_of(shop, batch_size=3)
    aggregates = [an_aggregate(lane) for lane in (0, 0, 0, 1)]
    promised(drain.db, *(aggregates * 5))

    drain.run()

    by_id = {one.id: one.aggregate_id for one in rows(drain.db)}
    for aggregate in aggregates:
        sent = [row_id for row_id in shop.called if by_id[row_id] == aggregate]
        assert sent == sorted(sent) and len(sent) == 5


def test_what_failed_is_tried_again_later_and_before_what_follows_it(drain_of: OpenDrain) -> None:
    shop = Troubled()
    drain = drain_of(shop)
    one, other = an_aggregate(), an_aggregate()
    first, second, free = promised(drain.db, one, one, other)
    shop.trouble[first] = NOT_NOW

    assert drain.run() == Tally(delivered=1, waiting=2)
    assert (shop.called, standing(drain.db)) == ([first, free], ["waiting", "waiting", "processed"])
    third, *_ = promised(drain.db, one)
    assert drain.run() == Tally(waiting=1)
    shop.trouble.clear()
    time_passes(drain.db)

    assert drain.run() == Tally(delivered=3)
    assert shop.called == [first, free, first, second, third]
    assert row(drain.db, first).attempts == 1


def test_a_dead_row_lets_its_aggregate_go_on(drain_of: OpenDrain) -> None:
    shop = Troubled()
    drain = drain_of(shop)
    aggregate = an_aggregate()
    first, second = promised(drain.db, aggregate, aggregate)
    shop.trouble[first] = Rejected("too large")

    assert drain.run() == Tally(delivered=1, dead=1)

    assert shop.called == [first, second]
    assert standing(drain.db) == ["dead", "processed"]
    assert row(drain.db, first).last_error == "too large"


def test_after_the_last_attempt_a_row_is_dead_and_its_aggregate_goes_on_in_order(drain_of: OpenDrain) -> None:
    shop = Troubled()
    drain = drain_of(shop, max_attempts=1, batch_size=2)
    aggregate = an_aggregate()
    ids = promised(drain.db, *[aggregate] * 5)
    shop.trouble[ids[0]] = Failed("oops")

    drain.run()

    assert shop.called == ids
    assert standing(drain.db) == ["dead"] + ["processed"] * 4


def test_a_server_that_breaks_the_call_fails_only_that_row(drain_of: OpenDrain) -> None:
    def answer(row: Row) -> Outcome:
        if row.id == 1:
            raise RuntimeError("unforeseen")
        return Delivered()

    drain = drain_of(Outside(answer))
    promised(drain.db, an_aggregate(), an_aggregate())

    assert drain.run(limit=2) == Tally(delivered=1, waiting=1)
    assert row(drain.db, 1).last_error == "RuntimeError: unforeseen"


def test_a_refusal_is_a_kept_promise(drain_of: OpenDrain) -> None:
    drain = drain_of(Outside(lambda _: Refused("no")))
    promised(drain.db, an_aggregate())

    assert drain.run() == Tally(delivered=1)
    assert standing(drain.db) == ["processed"]


def test_no_more_rows_are_tried_than_the_limit(drain_of: OpenDrain) -> None:
    shop = Outside()
    drain = drain_of(shop, batch_size=3)
    promised(drain.db, *(an_aggregate(number % 2) for number in range(20)))

    assert drain.run(limit=7) == Tally(delivered=7)
    assert len(shop.called) == 7
    assert drain.run(limit=7) == Tally(delivered=7)
    assert claimed(drain.db) is not None, "the lanes were given back"


def test_a_drain_that_is_told_to_stop_finishes_what_is_in_hand_and_gives_its_lane_back(drain_of: OpenDrain) -> None:
    shop = Outside()
    drain = drain_of(shop, batch_size=2)
    promised(drain.db, *(an_aggregate() for _ in range(6)))

    def stop(_: Row) -> Outcome:
        drain.stopping.set()
        return Delivered()

    shop.answer = stop

    assert drain.run() == Tally(delivered=2)
    assert claimed(drain.db) is not None


def test_a_drain_that_was_stopped_claims_nothing(drain_of: OpenDrain) -> None:
    drain = drain_of(Outside())
    promised(drain.db, an_aggregate())
    drain.stopping.set()

    assert drain.run() == Tally()


def test_a_drain_ends_at_its_time(drain_of: OpenDrain) -> None:
    drain = drain_of(Outside())
    promised(drain.db, an_aggregate())

    assert drain.run(until=time.monotonic()) == Tally()


def test_a_lane_is_given_back_after_its_slice_of_time(drain_of: OpenDrain) -> None:
    shop = Outside()
    drain = drain_of(shop, batch_size=1)
    ids = promised(drain.db, *(an_aggregate(lane) for lane in (0, 0, 0, 1)))

    def slow_at_first(_: Row) -> Outcome:
        time.sleep(SLICE_SECONDS if len(shop.called) == 1 else 0)
        return Delivered()

    shop.answer = slow_at_first

    drain.run()

    assert sorted(shop.called) == ids
    assert shop.called.index(ids[3]) == 1, "the other lane had its turn in between"


def test_what_a_run_has_done_so_far_is_told(drain_of: OpenDrain) -> None:
    drain = drain_of(Outside())
    promised(drain.db, an_aggregate(1), an_aggregate(2))
    told: list[int] = []

    drain.run(progress=lambda tally: told.append(tally.delivered))

    assert told == [1, 2]


def test_rows_of_a_destination_that_nobody_knows_here_are_left_pending(drain_of: OpenDrain, db: Db) -> None:
    """During a rolling deployment an old worker meets rows of a new destination."""
    recorded(db, an_event(an_aggregate()))
    drain = drain_of(Outside())

    assert drain.run() == Tally()
    assert standing(db) == ["ready"]


def test_a_paused_destination_keeps_its_rows(drain_of: OpenDrain) -> None:
    shop = Outside()
    drain = drain_of(shop)
    promised(drain.db, an_aggregate())
    with drain.db.begin() as session:
        session.execute(update(destinations).values(paused=True))

    assert drain.run() == Tally()
    assert (shop.called, standing(drain.db)) == ([], ["ready"])


def test_a_drain_that_lost_its_lease_writes_nothing_and_counts_it(drain_of: OpenDrain) -> None:
    shop = Outside()
    drain = drain_of(shop)
    promised(drain.db, an_aggregate(), an_aggregate())

    def freeze(_: Row) -> Outcome:
        if len(shop.called) == 1:
            time_passes(drain.db)
            assert claimed(drain.db) is not None
        return Delivered()

    shop.answer = freeze

    tally = drain.run()

    assert tally == Tally(fenced=2)
    assert standing(drain.db) == ["ready", "ready"]


def test_a_row_that_commits_late_is_not_overtaken_by_the_next_one_of_its_aggregate(drain_of: OpenDrain) -> None:
    shop = Outside()
    drain = drain_of(shop, batch_size=1)
    slow, quick = an_aggregate(), an_aggregate()
    with drain.db() as late:
        outbox.record(late, [an_event(slow)])
        promised(drain.db, quick)

        def meanwhile(_: Row) -> Outcome:
            if len(shop.called) == 1:
                late.commit()
                promised(drain.db, slow)
            return Delivered()

        shop.answer = meanwhile
        drain.run()

    assert shop.called == [2, 1, 3]


def test_two_drains_at_once_deliver_each_row_once(drain_of: OpenDrain) -> None:
    shop = Outside(concurrency=4)
    drain = drain_of(shop, batch_size=5)
    ids = promised(drain.db, *(an_aggregate(number % 32) for number in range(400)))

    others = [Thread(target=drain.run) for _ in range(4)]
    for other in others:
        other.start()
    for other in others:
        other.join()

    assert sorted(shop.called) == ids
    assert set(standing(drain.db)) == {"processed"}


def test_a_lease_is_renewed_while_a_call_takes_its_time(drain_of: OpenDrain) -> None:
    shop, called, done = Outside(), Event(), Event()
    drain = drain_of(shop)
    promised(drain.db, an_aggregate())

    def slow(_: Row) -> Outcome:
        called.set()
        done.wait()
        return Delivered()

    shop.answer = slow
    working = Thread(target=drain.run)
    working.start()
    called.wait()

    first = leased_until(drain.db)
    wait_until("the lease is renewed", lambda: leased_until(drain.db) > first)
    done.set()
    working.join()

    assert standing(drain.db) == ["processed"]


def leased_until(db: Db) -> datetime:
    """Until when the one lane that is held is leased."""
    with db.begin() as session:
        moment: datetime = session.execute(select(lanes.c.leased_until).where(lanes.c.holder.is_not(None))).scalar_one()
    return moment
