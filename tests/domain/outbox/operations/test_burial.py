"""Burying: a pending event becomes a dead letter, whatever its worker does, and later ones go on at once."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from uuid import UUID

import pytest
from sqlalchemy import delete, update

from domain import outbox
from domain.outbox import Delivered, History, Outcome, Row
from domain.outbox.delivery.lanes import fence
from domain.outbox.operations import burial
from domain.outbox.operations.burial import PendingRow
from domain.outbox.operations.selection import Among, Selection
from domain.outbox.operations.status import read_statuses
from domain.outbox.table import destinations, lanes
from domain.outbox.table import outbox as table
from tests.conftest import OpenRelay
from tests.domain.outbox.conftest import stored_lane
from tests.domain.outbox.operations.test_replay import DEAD, replayed, violated
from tests.support.builders import Db
from tests.support.operations import ENTRY, audited
from tests.support.outbox import (
    DOWN,
    NOT_NOW,
    SHOP,
    FakeDestination,
    a_lane,
    a_retry_policy,
    an_aggregate,
    fetched,
    recorded_for,
    released,
    row,
    settled,
    states,
    with_shop,
)
from tests.support.waiting import PATIENCE_SECONDS, wait_until_blocked


def of_event(db: Db, row_id: int) -> Selection:
    return Selection(among=Among.PENDING, event_id=row(db, row_id).event_id)


def of_reservation(aggregate: UUID) -> Selection:
    return Selection(among=Among.PENDING, reservation_id=aggregate)


def buried(db: Db, selection: Selection) -> Sequence[PendingRow]:
    with db.begin() as session:
        return burial.bury(session, selection, ENTRY)


def test_a_ready_event_becomes_a_dead_letter_with_the_reason_and_is_not_sent(relay_to: OpenRelay) -> None:
    server = FakeDestination()
    relay = relay_to(server)
    aggregate = an_aggregate()
    ids = recorded_for(relay.db, aggregate, aggregate, an_aggregate())

    (one,) = buried(relay.db, of_event(relay.db, ids[0]))
    relay.run()

    assert (one.id, one.in_flight) == (ids[0], False)
    assert server.called == ids[1:]
    assert states(relay.db) == ["dead", "processed", "processed"]
    assert row(relay.db, ids[0]).last_error == "Buried by ann: stocktaking"
    (entry,) = audited(relay.db)
    assert (entry.action, entry.who, entry.why, entry.rows) == ("bury", "ann", "stocktaking", 1)
    assert entry.selection == {"among": "pending", "event_id": str(one.event_id)}
    assert violated(relay.db) == []


def test_it_is_counted_listed_and_replayed_as_other_dead_letters_are(relay_to: OpenRelay) -> None:
    server = FakeDestination()
    relay = relay_to(server)
    (only,) = recorded_for(relay.db, an_aggregate())
    buried(relay.db, of_event(relay.db, only))
    with relay.db.begin() as session:
        (shop,) = (status for status in read_statuses(session) if status.name == SHOP)
    assert (shop.dead, shop.pending) == (1, 0)

    assert replayed(relay.db, DEAD) == 1
    relay.run()

    assert server.called == [only]
    assert states(relay.db) == ["processed"]


@pytest.mark.parametrize("trouble", [NOT_NOW, DOWN])
def test_those_that_wait_behind_a_buried_event_go_on_at_once(relay_to: OpenRelay, trouble: Outcome) -> None:
    server = FakeDestination()
    relay = relay_to(server)
    aggregate = an_aggregate()
    ids = recorded_for(relay.db, aggregate, aggregate, aggregate)
    server.failures = {ids[0]: trouble}
    relay.run()
    assert states(relay.db) == ["waiting"] * 3
    server.called.clear()
    with relay.db.begin() as session:  # another row has shown meanwhile that the destination is up
        session.execute(update(destinations).values(failures=0, open_until=None))

    buried(relay.db, of_event(relay.db, ids[0]))
    relay.run()

    assert server.called == ids[1:]
    assert states(relay.db) == ["dead", "processed", "processed"]
    assert row(relay.db, ids[0]).last_error.startswith("Buried by ann: stocktaking. Its last error was: ")


def test_those_that_wait_below_the_low_watermark_go_on_at_once(relay_to: OpenRelay) -> None:
    server = FakeDestination()
    relay = relay_to(server)
    aggregate, neighbour = an_aggregate(3), an_aggregate(3)
    ids = recorded_for(relay.db, aggregate, aggregate, neighbour)
    server.failures = {ids[0]: NOT_NOW}
    relay.run()
    with relay.db.begin() as session:
        session.execute(update(lanes).values(low_watermark=ids[-1]))

    buried(relay.db, of_event(relay.db, ids[0]))
    relay.run()

    assert states(relay.db) == ["dead", "processed", "processed"]


def test_those_behind_an_earlier_event_that_waits_are_still_not_sent(relay_to: OpenRelay) -> None:
    server = FakeDestination()
    relay = relay_to(server)
    aggregate = an_aggregate()
    ids = recorded_for(relay.db, aggregate, aggregate, aggregate)
    server.failures = {ids[0]: NOT_NOW}
    relay.run()
    until = row(relay.db, ids[0]).available_at

    buried(relay.db, of_event(relay.db, ids[1]))
    relay.run()

    assert server.called == [ids[0]]
    assert states(relay.db) == ["waiting", "dead", "waiting"]
    assert row(relay.db, ids[2]).available_at == until


def test_an_event_that_was_tried_itself_waits_for_its_own_time(shop: Db) -> None:
    aggregate = an_aggregate()
    first, second = recorded_for(shop, aggregate, aggregate)
    lane = a_lane(shop)
    batch = fetched(shop, lane)
    settled(shop, lane, [(batch[0], Delivered()), (batch[1], NOT_NOW)])
    until = row(shop, second).available_at
    with shop.begin() as session:  # the first one is replayed
        session.execute(update(table).where(table.c.id == first).values(processed_at=None))

    buried(shop, of_event(shop, first))

    assert row(shop, second).available_at == until


def test_an_answer_that_was_not_settled_yet_is_dropped_and_the_lane_is_free(shop: Db) -> None:
    """The worker has been answered "delivered" for all three, and settles when the first one has been buried."""
    aggregate = an_aggregate()
    ids = recorded_for(shop, aggregate, aggregate, an_aggregate())
    old = a_lane(shop)
    batch = fetched(shop, old)

    (one,) = buried(shop, of_event(shop, ids[0]))

    assert one.in_flight
    assert settled(shop, old, [(row, Delivered()) for row in batch]) is None
    assert states(shop) == ["dead", "ready", "ready"]
    new = a_lane(shop)
    assert new.epoch > old.epoch + 1, "the burying has raised it as well"
    assert [row.id for row in fetched(shop, new)] == ids[1:]


def test_an_event_that_was_settled_first_is_left_alone(shop: Db) -> None:
    """The operator sees it pending; before the lane is locked for the burying, its worker settles it."""
    (only,) = recorded_for(shop, an_aggregate())
    lane = a_lane(shop)
    batch = fetched(shop, lane)
    with ThreadPoolExecutor(1) as operator:
        with shop.begin() as session:
            fence(session, lane)
            buried_rows = operator.submit(buried, shop, of_event(shop, only))
            wait_until_blocked(shop)
            outbox.settle(session, [lane], [(batch[0], Delivered())], retry_policy=a_retry_policy(), history=History())
        assert buried_rows.result(PATIENCE_SECONDS) == []

    assert states(shop) == ["processed"]
    assert stored_lane(shop, lane)[:2] == (lane.epoch, lane.holder), "its worker keeps the lane"
    assert audited(shop) == []


def test_a_call_that_hangs_does_not_hold_up_those_behind_its_event(relay_to: OpenRelay) -> None:
    called, answered = Event(), Event()

    def hang(row: Row) -> Outcome:
        if row.id == 1 and not called.is_set():
            called.set()
            assert answered.wait(PATIENCE_SECONDS)
        return Delivered()

    hanging = FakeDestination(hang, concurrency=2)
    relay = relay_to(hanging)
    aggregate = an_aggregate()
    ids = recorded_for(relay.db, aggregate, aggregate)
    with ThreadPoolExecutor(1) as worker:
        run = worker.submit(relay.run)
        assert called.wait(PATIENCE_SECONDS)

        buried(relay.db, of_event(relay.db, ids[0]))
        lane = a_lane(relay.db)
        assert [row.id for row in fetched(relay.db, lane)] == ids[1:]
        released(relay.db, lane)
        answered.set()
        tally = run.result(PATIENCE_SECONDS)

    assert tally.fenced >= 1
    relay.run()
    assert states(relay.db) == ["dead", "processed"]
    assert violated(relay.db) == []


def test_the_pending_events_of_a_reservation_are_buried_for_every_destination_or_for_one(db: Db) -> None:
    shop, other = with_shop(db), with_shop(db, name="other")
    aggregate = an_aggregate()
    recorded_for(shop, aggregate, aggregate)
    recorded_for(other, aggregate, an_aggregate())

    one = Selection(among=Among.PENDING, reservation_id=aggregate, destination="other")
    assert [row.destination for row in buried(shop, one)] == ["other"]
    assert [row.destination for row in buried(shop, of_reservation(aggregate))] == [SHOP, SHOP]

    assert states(shop) == ["dead", "dead", "dead", "ready"]


def test_what_is_not_pending_is_not_buried(relay_to: OpenRelay) -> None:
    server = FakeDestination()
    relay = relay_to(server)
    delivered, _ = recorded_for(relay.db, an_aggregate(), an_aggregate())
    relay.run()

    assert buried(relay.db, of_event(relay.db, delivered)) == []

    assert states(relay.db) == ["processed", "processed"]
    assert audited(relay.db) == []


def test_an_event_for_a_destination_that_no_worker_has_served_can_be_buried(shop: Db) -> None:
    (only,) = recorded_for(shop, an_aggregate())
    with shop.begin() as session:
        session.execute(delete(lanes))

    assert [row.id for row in buried(shop, of_event(shop, only))] == [only]
    assert states(shop) == ["dead"]
