"""bin/why: everything that prevents the delivery of an event is found, and described in a sentence."""

from collections.abc import Sequence
from concurrent.futures import Future
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, update

from domain.fulfilment import CONFIRMATION, STEP_TYPES
from domain.outbox import InFlight, Rejected, Unreachable
from domain.outbox.operations import dead_letters, destinations, replay
from domain.outbox.operations.bulk_change import Batch
from domain.outbox.operations.explain import (
    BlockedByEarlierEvent,
    BreakerOpen,
    CallInFlight,
    Dead,
    Discarded,
    Explanation,
    Leased,
    Obstacle,
    Paused,
    Processed,
    Ready,
    Unregistered,
    Unrouted,
    Waiting,
    explain,
)
from domain.outbox.table import outbox
from domain.reservations.events import RESERVATION_CONFIRM
from domain.runtime.errors import NotInOutbox
from tests.conftest import OpenRelay
from tests.support.builders import Db, a_hold, an_event, an_item, recorded
from tests.support.commands import a_routes_file, on_one_line, run_command
from tests.support.operations import ENTRY, mark_dead, mark_delivered
from tests.support.outbox import (
    NOT_NOW,
    SHOP,
    FakeDestination,
    a_lane,
    an_aggregate,
    destination,
    fetched,
    leases_renewed,
    recorded_for,
    released,
    row,
    rows,
    settled,
    time_passes,
    with_shop,
)

BUSY = Unreachable("503 Service Unavailable", retry_after=timedelta(minutes=1))


@pytest.fixture
def shop(db: Db) -> Db:
    return with_shop(db)


def explanations(db: Db, subject_id: UUID, routes: Sequence[str] = (SHOP,)) -> Sequence[Explanation]:
    with db.begin() as session:
        return explain(session, subject_id, routes)


def the_explanation(db: Db, row_id: int = 1, routes: Sequence[str] = (SHOP,)) -> Explanation:
    (found,) = explanations(db, row(db, row_id).event_id, routes)
    return found


def obstacles(db: Db, row_id: int = 1, routes: Sequence[str] = (SHOP,)) -> Sequence[Obstacle]:
    found = the_explanation(db, row_id, routes)
    assert found.end is None
    return found.obstacles


def printed(db: Db, tmp_path: Path, row_id: int = 1, *names: str) -> str:
    """Return what bin/why prints about the event of a row, on one line."""
    run = run_command(
        "why", str(row(db, row_id).event_id), HOLDFAST_ROUTES=a_routes_file(tmp_path, *(names or (SHOP,)))
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert all(len(line) <= 100 for line in run.stdout.splitlines())
    return on_one_line(run.stdout)


def test_an_id_that_is_not_in_the_outbox_is_reported(shop: Db) -> None:
    stranger = uuid4()
    with pytest.raises(NotInOutbox):
        explanations(shop, stranger)

    run = run_command("why", str(stranger))

    assert (run.returncode, run.stdout) == (1, "")
    assert f"no event and no reservation with the id {stranger}" in run.stderr
    assert len(run.stderr.splitlines()) == 1


def test_text_that_is_no_id_is_wrong_usage() -> None:
    run = run_command("why", "booking-1")

    assert run.returncode == 2 and "EVENT_ID|RESERVATION_ID" in run.stderr


def test_a_delivered_event_is_described_as_delivered(shop: Db, tmp_path: Path) -> None:
    recorded_for(shop, an_aggregate())
    mark_delivered(shop, 1)

    assert the_explanation(shop).end == Processed(at=row(shop, 1).processed_at)
    assert "Delivered at " in printed(shop, tmp_path)


def test_a_confirmation_is_not_called_delivered_as_the_service_may_never_have_been_asked(
    db: Db, tmp_path: Path
) -> None:
    hold = a_hold(db, an_item(db))
    (asked,) = [one.id for one in rows(db) if one.type == RESERVATION_CONFIRM]
    mark_delivered(db, asked)

    text = printed(db, tmp_path, asked)
    assert "Settled at " in text and "Delivered" not in text
    assert f"{CONFIRMATION} answered, or was not asked because the hold had ended." in text
    assert f"GET /reservations/{hold.id}" in text


def test_a_dead_letter_is_described_with_its_error_and_how_to_replay_it(shop: Db, tmp_path: Path) -> None:
    recorded_for(shop, an_aggregate())
    mark_dead(shop, 1, of="422 bad date")

    assert the_explanation(shop).end == Dead(since=row(shop, 1).dead_at, error="422 bad date", attempts=12)
    text = printed(shop, tmp_path)
    assert "after 12 attempts (422 bad date)" in text
    assert f"bin/dead-letters replay --event {row(shop, 1).event_id}" in text


def test_a_discarded_dead_letter_is_described_as_discarded(shop: Db, tmp_path: Path) -> None:
    recorded_for(shop, an_aggregate())
    mark_dead(shop, 1)
    with shop.begin() as session:
        dead_letters.discard(session, Batch(selection=dead_letters.ALL, entry=ENTRY))

    assert isinstance(the_explanation(shop).end, Discarded)
    assert "Discarded at " in printed(shop, tmp_path)


def test_an_event_that_nothing_prevents_is_ready(shop: Db, tmp_path: Path) -> None:
    recorded_for(shop, an_aggregate())

    assert obstacles(shop) == (Ready(),)
    assert "Ready; waiting for a worker." in printed(shop, tmp_path)


def test_an_event_is_blocked_by_the_first_pending_event_of_its_reservation(shop: Db, tmp_path: Path) -> None:
    aggregate = an_aggregate()
    recorded_for(shop, aggregate, aggregate, aggregate)
    first = row(shop, 1)

    assert obstacles(shop, 3) == [BlockedByEarlierEvent(event_id=first.event_id, type="booking.created")]
    assert f"bin/why {first.event_id}" in printed(shop, tmp_path, 3)
    mark_dead(shop, 1)
    assert obstacles(shop, 3) == [BlockedByEarlierEvent(event_id=row(shop, 2).event_id, type="booking.created")]


def test_an_event_for_another_destination_or_of_another_reservation_blocks_nothing(db: Db) -> None:
    aggregate = an_aggregate()
    recorded_for(with_shop(db, name="other"), aggregate)
    recorded_for(with_shop(db), an_aggregate(), aggregate)

    assert obstacles(db, 3) == (Ready(),)


def test_an_event_that_failed_waits_for_its_next_attempt(relay_to: OpenRelay, tmp_path: Path) -> None:
    server = FakeDestination()
    relay = relay_to(server)
    recorded_for(relay.db, an_aggregate())
    server.failures[1] = NOT_NOW
    relay.run()

    until = row(relay.db, 1).available_at
    assert obstacles(relay.db) == [Waiting(until=until, attempts=1, error="not now")]
    text = printed(relay.db, tmp_path)
    assert "Waiting until " in text and "after 1 failed attempt (not now)" in text


def test_an_event_for_a_destination_that_is_down_is_described_with_since_when_and_why(
    relay_to: OpenRelay, tmp_path: Path
) -> None:
    server = FakeDestination()
    relay = relay_to(server)
    recorded_for(relay.db, an_aggregate())
    server.failures[1] = BUSY
    relay.run()

    state = destination(relay.db)
    breaker, waiting = obstacles(relay.db)
    assert breaker == BreakerOpen(since=state.opened_at, until=state.open_until, reason=BUSY.error)
    assert waiting == Waiting(until=row(relay.db, 1).available_at, attempts=0, error=BUSY.error)
    text = printed(relay.db, tmp_path)
    assert "has been down since " in text and BUSY.error in text
    assert f"because its destination was down ({BUSY.error})." in text


def test_an_event_that_waits_with_an_earlier_one_has_no_error_of_its_own(relay_to: OpenRelay, tmp_path: Path) -> None:
    """A replay keeps the error of the last attempt before it, which is not why the event waits now."""
    server = FakeDestination()
    relay = relay_to(server)
    aggregate = an_aggregate()
    recorded_for(relay.db, aggregate, aggregate)
    mark_dead(relay.db, 2)
    with relay.db.begin() as session:
        replay.replay(session, Batch(selection=dead_letters.ALL, entry=ENTRY), STEP_TYPES)
    server.failures[1] = NOT_NOW
    relay.run()

    until = row(relay.db, 1).available_at
    blocked, waiting = obstacles(relay.db, 2)
    assert isinstance(blocked, BlockedByEarlierEvent)
    assert waiting == Waiting(until=until, attempts=0, error=None)
    assert "because an earlier event of its reservation had to wait." in printed(relay.db, tmp_path, 2)


def test_an_event_for_a_paused_destination_is_described_with_the_reason(shop: Db, tmp_path: Path) -> None:
    recorded_for(shop, an_aggregate())
    with shop.begin() as session:
        destinations.pause(session, SHOP, ENTRY)

    assert obstacles(shop) == [Paused(reason="stocktaking (ann)")]
    assert "paused (stocktaking (ann))" in printed(shop, tmp_path)


def test_an_event_whose_call_has_not_ended_is_described_until_when_it_may_take(shop: Db, tmp_path: Path) -> None:
    recorded_for(shop, an_aggregate())
    lane = a_lane(shop)
    in_flight = InFlight(timedelta(minutes=1), Future())
    settled(shop, lane, [(fetched(shop, lane)[0], in_flight)])
    released(shop, lane)

    assert obstacles(shop) == [CallInFlight(until=row(shop, 1).available_at)]
    assert "Sent, and shop has not answered yet." in printed(shop, tmp_path)


def test_an_event_in_a_leased_lane_is_described_with_the_holder(shop: Db, tmp_path: Path) -> None:
    recorded_for(shop, an_aggregate())
    lane = a_lane(shop)

    (leased,) = obstacles(shop)
    assert isinstance(leased, Leased) and leased.holder == lane.holder
    with leases_renewed(shop):
        assert lane.holder in printed(shop, tmp_path)
    with shop.begin() as session:
        session.execute(update(outbox).values(lane=1))
    assert obstacles(shop) == (Ready(),), "another lane is leased, not its own"


def test_a_lease_that_has_ended_is_no_obstacle(shop: Db) -> None:
    recorded_for(shop, an_aggregate())
    a_lane(shop)
    time_passes(shop)

    assert obstacles(shop) == (Ready(),)


def test_a_lease_that_is_longer_than_any_can_be_is_no_obstacle(shop: Db) -> None:
    """PostgreSQL's clock has stepped back since, so the lane may be claimed."""
    recorded_for(shop, an_aggregate())
    a_lane(shop)
    time_passes(shop, -timedelta(hours=2))

    assert obstacles(shop) == (Ready(),)


def test_an_event_for_a_destination_that_left_the_routes_stays_pending(shop: Db, tmp_path: Path) -> None:
    recorded_for(shop, an_aggregate())

    assert obstacles(shop, routes=["other"]) == [Unrouted()]
    assert "not in the routes" in printed(shop, tmp_path, 1, "other")


def test_an_event_for_a_destination_that_no_worker_ever_served_has_no_lane(db: Db, tmp_path: Path) -> None:
    recorded_for(with_shop(db), an_aggregate())
    with db.begin() as session:
        session.execute(update(outbox).values(destination="new"))

    assert obstacles(db, routes=["new"]) == [Unregistered()]
    assert "no worker has ever served new" in printed(db, tmp_path, 1, "new")


def test_all_obstacles_are_described_at_once(shop: Db) -> None:
    aggregate = an_aggregate()
    recorded_for(shop, aggregate, aggregate)
    with shop.begin() as session:
        destinations.pause(session, SHOP, ENTRY)
        session.execute(update(outbox).values(available_at=func.now() + timedelta(hours=1)))

    kinds = [type(one) for one in obstacles(shop, 2, routes=["other"])]

    assert kinds == [Unrouted, Paused, BlockedByEarlierEvent, Waiting]


def test_a_replay_is_described(relay_to: OpenRelay, tmp_path: Path) -> None:
    server = FakeDestination()
    relay = relay_to(server)
    recorded_for(relay.db, an_aggregate())
    server.failures[1] = Rejected("no")
    relay.run()
    with relay.db.begin() as session:
        replay.replay(session, Batch(selection=dead_letters.ALL, entry=ENTRY), STEP_TYPES)

    assert obstacles(relay.db) == (Ready(),)
    assert "replayed at " in printed(relay.db, tmp_path)


def test_a_reservation_is_described_delivery_by_delivery_in_order(db: Db, tmp_path: Path) -> None:
    aggregate = an_aggregate()
    one, other = with_shop(db), with_shop(db, name="other")
    for sessions in (one, other):
        recorded(sessions, an_event(aggregate), an_event(aggregate, "booking.cancelled"))
    mark_delivered(db, 1, 3)

    found = explanations(db, aggregate, routes=[SHOP, "other"])
    run = run_command("why", str(aggregate), HOLDFAST_ROUTES=a_routes_file(tmp_path, SHOP, "other"))

    assert [(one.type, one.destination) for one in found] == [
        ("booking.created", SHOP),
        ("booking.cancelled", SHOP),
        ("booking.created", "other"),
        ("booking.cancelled", "other"),
    ]
    assert [type(one.end) for one in found] == [Processed, type(None)] * 2
    assert run.stdout.count("Delivered at ") == run.stdout.count("Ready; ") == 2
