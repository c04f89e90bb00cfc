"""Workers and APIs that are killed or frozen, in the middle of what they do."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from random import Random
from typing import Any

from sqlalchemy import Row, select, tuple_

from domain.outbox.delivery.lanes import LEASE
from domain.outbox.table import lanes, outbox, pending
from tests.proofs.checker import check, wait_until_drained
from tests.proofs.cluster import House
from tests.proofs.conftest import Open
from tests.proofs.load import Customers
from tests.proofs.processes import Process
from tests.proofs.waiting import wait_until
from worker.relay.leases import RENEW_SECONDS

#: The promise: what a killed worker had in hand goes out again within this time.
REDELIVERED_WITHIN_SECONDS = 6.0

#: What a machine of two cores that others use as well may add to it.
BUSY_SECONDS = 3.0

#: Rows of one batch to the partner: what may be sent and not settled, for each lane.
BATCH = 5

#: Fewer rows than this in hand would show little.
ENOUGH = 10

#: How many rows are pending in each lane that a worker holds, by destination and number.
InHand = Mapping[tuple[str, int], int]


def test_what_a_killed_worker_had_in_hand_goes_out_within_six_seconds(open_house: Open, seed: int) -> None:
    house = open_house(batch_size=BATCH, concurrency=2)
    api, killed, other = house.api(), house.worker(threads=3), house.worker(threads=3)
    house.scheduler()
    house.partners.ready()
    api.ready()
    house.partners.turn(latency_seconds=0.3)

    with Customers([api.port], [house.an_item(100_000).id], seed) as load:
        wait_until("the other worker is at work", lambda: house.held_by(other))
        in_hand = _frozen_in_mid_delivery(house, killed)
        moment = house.now()
        killed.kill()
        house.partners.turn()
        late = _settled_after(house, in_hand, moment)
        load.go_on(answers=20)
    wait_until_drained(house)

    print(f"{sum(in_hand.values())} rows in {len(in_hand)} lanes, the last settled {late:.2f} s after the kill")
    assert late <= REDELIVERED_WITHIN_SECONDS + BUSY_SECONDS
    counted = check(house, repeats_at_most=_in_flight(in_hand), answered=load.answered)
    assert counted.attempts == 0
    assert not load.unexpected


def test_a_worker_that_was_frozen_past_its_lease_settles_nothing(open_house: Open, seed: int) -> None:
    house = open_house(batch_size=BATCH, concurrency=2)
    api, frozen, other = house.api(), house.worker(threads=3), house.worker(threads=3)
    house.scheduler()
    house.partners.ready()
    api.ready()
    house.partners.turn(latency_seconds=0.3)

    with Customers([api.port], [house.an_item(100_000).id], seed) as load:
        wait_until("the other worker is at work", lambda: house.held_by(other))
        in_hand = _frozen_in_mid_delivery(house, frozen)
        moment = house.now()
        house.partners.turn()
        late = _settled_after(house, in_hand, moment)
        before = _rows(house, in_hand, moment)
        frozen.thaw()
        wait_until("the fence stops it", lambda: frozen.events("outbox.fenced"))
        load.go_on(answers=20)
    wait_until_drained(house)

    fenced = sum(event["rows"] for event in frozen.events("outbox.fenced"))
    print(f"{sum(in_hand.values())} rows in {len(in_hand)} lanes, taken over after {late:.2f} s; {fenced} rows fenced")
    assert late >= LEASE.total_seconds() - RENEW_SECONDS - BUSY_SECONDS
    assert before == _rows(house, in_hand, moment)
    check(house, repeats_at_most=_in_flight(in_hand), answered=load.answered)
    assert not load.unexpected


def test_an_answer_outlives_the_api_that_gave_it(open_house: Open, seed: int) -> None:
    """Two APIs under load: one is killed as a whole, of the other the process that serves, which is replaced.

    Who was answered finds the same reservation again.
    """
    house = open_house()
    dice = Random(seed)
    apis = [house.api(), house.api()]
    house.worker()
    house.scheduler()
    house.partners.ready()
    for api in apis:
        api.ready()
    item = house.an_item(100_000)

    with Customers([api.port for api in apis], [item.id], seed, customers=6, rest_seconds=0.3) as load:
        for _ in range(2):
            load.go_on(seconds=dice.uniform(0.2, 0.6), answers=10)
            apis[0].process.kill()
            apis[0] = house.api(apis[0].port).ready()
        # Once only: Granian takes a second death within some seconds for a crash loop, and ends.
        apis[1].process.kill_children()
        load.go_on(seconds=dice.uniform(0.2, 0.6), answers=10)
        apis[1].ready()
        load.go_on(answers=20)
    again = {key: load.ask_again(key) for key in load.answered}
    wait_until_drained(house)

    print(f"{len(load.answered)} answered, {load.unanswered} had to ask again, the slowest {load.slowest:.2f} s")
    assert load.unanswered > 0, "No request was in flight when the API was killed: the proof has shown nothing."
    assert again == load.answered
    assert not load.unexpected
    check(house, answered=load.answered)


def _frozen_in_mid_delivery(house: House, worker: Process) -> InHand:
    """Stop a worker while it delivers to the partner, outside of any transaction. Return what it had in hand."""

    def caught() -> InHand:
        if not any(at == "partner" for at, _ in house.held_by(worker)):
            return {}
        worker.freeze()
        in_hand = _in_hand(house, worker)
        if sum(in_hand.values()) < ENOUGH:
            worker.thaw()
            return {}
        return in_hand

    return wait_until("the worker is caught in mid-delivery", caught)


def _in_hand(house: House, worker: Process) -> InHand:
    """Return what is pending in the lanes that a frozen worker holds; nothing, if it is just settling one of them."""
    held = house.held_by(worker)
    lane, row = tuple_(lanes.c.destination, lanes.c.lane), tuple_(outbox.c.destination, outbox.c.lane)
    with house.db.begin() as session:
        at_rest = session.execute(select(lanes).where(lane.in_(held)).with_for_update(skip_locked=True)).all()
        rows = session.execute(select(outbox.c.destination, outbox.c.lane).where(pending, row.in_(held))).all()
    return Counter(tuple(row) for row in rows) if len(at_rest) == len(held) else {}


def _in_flight(in_hand: InHand) -> int:
    """Return how many rows can have been sent and not settled: a batch of each lane, to the destination with most."""
    at: Counter[str] = Counter()
    for (destination, _), rows in in_hand.items():
        at[destination] += min(rows, BATCH if destination == "partner" else rows)
    return max(at.values())


def _settled_after(house: House, in_hand: InHand, moment: datetime) -> float:
    """Wait until all that was pending in these lanes is settled. Return how many seconds after that moment it was."""

    def last() -> datetime | None:
        settled = [row.processed_at for row in _rows(house, in_hand, moment)]
        return None if None in settled else max(settled)

    found = wait_until("all that was in hand is settled", last, within=30)
    assert found is not None
    return (found - moment).total_seconds()


def _rows(house: House, in_hand: InHand, moment: datetime) -> Sequence[Row[Any]]:
    """Return all rows of these lanes that were there at that moment, in order of id."""
    row = tuple_(outbox.c.destination, outbox.c.lane)
    were_there = select(outbox).where(row.in_(in_hand), outbox.c.created_at <= moment)
    with house.db.begin() as session:
        return session.execute(were_there.order_by(outbox.c.id)).all()
