"""Why an event is not delivered: each obstacle is found, and told in a sentence."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, update

from domain.outbox import Rejected, Unreachable
from domain.outbox.operations import dead_letters, destinations, replay
from domain.outbox.operations.bulk_change import Batch
from domain.outbox.operations.explain import (
    BackingOff,
    Behind,
    BreakerOpen,
    Dead,
    Delivery,
    Discarded,
    Homeless,
    InHand,
    Obstacle,
    Paused,
    Processed,
    Ready,
    Unrouted,
    why,
)
from domain.outbox.table import outbox
from domain.runtime.errors import NothingPromised
from tests.conftest import OpenDrain
from tests.support.builders import Db, an_event, recorded
from tests.support.commands import routed, turned
from tests.support.operations import DEED, died, left
from tests.support.outbox import (
    NOT_NOW,
    SHOP,
    Troubled,
    a_lane,
    an_aggregate,
    destination,
    promised,
    row,
    time_passes,
    with_shop,
)

BUSY = Unreachable("503 Service Unavailable", retry_after=timedelta(minutes=1))


@pytest.fixture
def shop(db: Db) -> Db:
    return with_shop(db)


def deliveries(db: Db, which: UUID, routes: Sequence[str] = (SHOP,)) -> Sequence[Delivery]:
    with db.begin() as session:
        return why(session, which, routes)


def the_delivery(db: Db, row_id: int = 1, routes: Sequence[str] = (SHOP,)) -> Delivery:
    (found,) = deliveries(db, row(db, row_id).event_id, routes)
    return found


def obstacles(db: Db, row_id: int = 1, routes: Sequence[str] = (SHOP,)) -> Sequence[Obstacle]:
    found = the_delivery(db, row_id, routes)
    assert found.end is None
    return found.obstacles


def told(db: Db, tmp_path: Path, row_id: int = 1, *names: str) -> str:
    """What the key says of the event of a row, on one line."""
    run = turned("why", str(row(db, row_id).event_id), HOLDFAST_ROUTES=routed(tmp_path, *(names or (SHOP,))))
    assert (run.returncode, run.stderr) == (0, "")
    assert all(len(line) <= 100 for line in run.stdout.splitlines())
    return " ".join(run.stdout.split())


def test_an_id_under_which_nothing_is_promised_is_said_to_be_so(shop: Db) -> None:
    stranger = uuid4()
    with pytest.raises(NothingPromised):
        deliveries(shop, stranger)

    run = turned("why", str(stranger))

    assert (run.returncode, run.stdout) == (1, "")
    assert str(stranger) in run.stderr and "Traceback" not in run.stderr


def test_what_is_no_id_is_refused() -> None:
    run = turned("why", "booking-1")

    assert run.returncode == 2 and "EVENT_ID|RESERVATION_ID" in run.stderr


def test_what_was_delivered_is_said_to_be_so(shop: Db, tmp_path: Path) -> None:
    promised(shop, an_aggregate())
    left(shop, 1)

    assert the_delivery(shop).end == Processed(at=row(shop, 1).processed_at)
    assert "Delivered at " in told(shop, tmp_path)


def test_what_is_dead_tells_of_what_and_how_to_send_it_again(shop: Db, tmp_path: Path) -> None:
    promised(shop, an_aggregate())
    died(shop, 1, of="422 bad date")

    assert the_delivery(shop).end == Dead(since=row(shop, 1).dead_at, error="422 bad date", attempts=12)
    said = told(shop, tmp_path)
    assert "after 12 attempts (422 bad date)" in said
    assert f"bin/dead-letters replay --event {row(shop, 1).event_id}" in said


def test_what_was_discarded_is_not_merely_dead(shop: Db, tmp_path: Path) -> None:
    promised(shop, an_aggregate())
    died(shop, 1)
    with shop.begin() as session:
        dead_letters.discard(session, Batch(selection=dead_letters.ALL, deed=DEED))

    assert isinstance(the_delivery(shop).end, Discarded)
    assert "Discarded at " in told(shop, tmp_path)


def test_what_nobody_has_come_for_is_ready(shop: Db, tmp_path: Path) -> None:
    promised(shop, an_aggregate())

    assert obstacles(shop) == (Ready(),)
    assert "no worker has come yet" in told(shop, tmp_path)


def test_what_follows_another_one_waits_behind_the_first_of_them(shop: Db, tmp_path: Path) -> None:
    aggregate = an_aggregate()
    promised(shop, aggregate, aggregate, aggregate)
    first = row(shop, 1)

    assert obstacles(shop, 3) == [Behind(event_id=first.event_id, type="booking.created")]
    assert f"bin/why {first.event_id}" in told(shop, tmp_path, 3)
    died(shop, 1)
    assert obstacles(shop, 3) == [Behind(event_id=row(shop, 2).event_id, type="booking.created")]


def test_what_goes_elsewhere_or_is_of_another_reservation_stands_in_nobodys_way(db: Db) -> None:
    aggregate = an_aggregate()
    promised(with_shop(db, name="other"), aggregate)
    promised(with_shop(db), an_aggregate(), aggregate)

    assert obstacles(db, 3) == (Ready(),)


def test_what_failed_backs_off(drain_of: OpenDrain, tmp_path: Path) -> None:
    world = Troubled()
    drain = drain_of(world)
    promised(drain.db, an_aggregate())
    world.trouble[1] = NOT_NOW
    drain.run()

    until = row(drain.db, 1).available_at
    assert obstacles(drain.db) == [BackingOff(until=until, attempts=1, error="not now")]
    assert "after 1 failed attempt (not now)" in told(drain.db, tmp_path)


def test_what_meets_an_outage_says_since_when_and_why(drain_of: OpenDrain, tmp_path: Path) -> None:
    world = Troubled()
    drain = drain_of(world)
    promised(drain.db, an_aggregate())
    world.trouble[1] = BUSY
    drain.run()

    state = destination(drain.db)
    breaker, waiting = obstacles(drain.db)
    assert breaker == BreakerOpen(since=state.opened_at, until=state.open_until, reason=BUSY.error)
    assert isinstance(waiting, BackingOff)
    assert "has been down since " in told(drain.db, tmp_path) and BUSY.error in told(drain.db, tmp_path)


def test_what_goes_to_a_paused_destination_says_why(shop: Db, tmp_path: Path) -> None:
    promised(shop, an_aggregate())
    with shop.begin() as session:
        destinations.pause(session, SHOP, DEED)

    assert obstacles(shop) == [Paused(reason="stocktaking (ann)")]
    assert "paused (stocktaking (ann))" in told(shop, tmp_path)


def test_what_a_worker_has_in_hand_says_whose(shop: Db, tmp_path: Path) -> None:
    promised(shop, an_aggregate())
    lane = a_lane(shop)

    (held,) = obstacles(shop)
    assert isinstance(held, InHand) and held.holder == lane.holder
    assert lane.holder in told(shop, tmp_path)
    with shop.begin() as session:
        session.execute(update(outbox).values(lane=1))
    assert obstacles(shop) == (Ready(),), "another lane is held, not its own"


def test_a_lease_that_is_over_holds_nothing(shop: Db) -> None:
    promised(shop, an_aggregate())
    a_lane(shop)
    time_passes(shop)

    assert obstacles(shop) == (Ready(),)


def test_what_nobody_routes_any_more_is_left_pending_and_says_so(shop: Db, tmp_path: Path) -> None:
    promised(shop, an_aggregate())

    assert obstacles(shop, routes=["other"]) == [Unrouted()]
    assert "not in the routes" in told(shop, tmp_path, 1, "other")


def test_what_no_worker_ever_served_has_no_lane(db: Db, tmp_path: Path) -> None:
    promised(with_shop(db), an_aggregate())
    with db.begin() as session:
        session.execute(update(outbox).values(destination="new"))

    assert obstacles(db, routes=["new"]) == [Homeless()]
    assert "no worker has ever served new" in told(db, tmp_path, 1, "new")


def test_all_that_is_in_the_way_is_told_at_once(shop: Db) -> None:
    aggregate = an_aggregate()
    promised(shop, aggregate, aggregate)
    with shop.begin() as session:
        destinations.pause(session, SHOP, DEED)
        session.execute(update(outbox).values(available_at=func.now() + timedelta(hours=1)))

    kinds = [type(one) for one in obstacles(shop, 2, routes=["other"])]

    assert kinds == [Unrouted, Paused, Behind, BackingOff]


def test_a_replay_is_told(drain_of: OpenDrain, tmp_path: Path) -> None:
    world = Troubled()
    drain = drain_of(world)
    promised(drain.db, an_aggregate())
    world.trouble[1] = Rejected("no")
    drain.run()
    with drain.db.begin() as session:
        replay.send_again(session, Batch(selection=dead_letters.ALL, deed=DEED))

    assert obstacles(drain.db) == (Ready(),)
    assert "replayed at " in told(drain.db, tmp_path)


def test_a_reservation_is_told_delivery_by_delivery_in_order(db: Db, tmp_path: Path) -> None:
    aggregate = an_aggregate()
    one, other = with_shop(db), with_shop(db, name="other")
    for sessions in (one, other):
        recorded(sessions, an_event(aggregate), an_event(aggregate, "booking.cancelled"))
    left(db, 1, 3)

    found = deliveries(db, aggregate, routes=[SHOP, "other"])
    run = turned("why", str(aggregate), HOLDFAST_ROUTES=routed(tmp_path, SHOP, "other"))

    assert [(one.type, one.destination) for one in found] == [
        ("booking.created", SHOP),
        ("booking.cancelled", SHOP),
        ("booking.created", "other"),
        ("booking.cancelled", "other"),
    ]
    assert [type(one.end) for one in found] == [Processed, type(None)] * 2
    assert run.stdout.count("Delivered at ") == run.stdout.count("Ready: ") == 2
