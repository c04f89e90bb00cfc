"""Order per reservation, where it is in danger: commits out of the order of ids, and rows that do not leave."""

from collections.abc import Mapping
from typing import Any

from tests.proofs.checker import check, wait_until_drained
from tests.proofs.cluster import reserved, wait_until_in_mid_delivery
from tests.proofs.conftest import Open
from tests.proofs.receiver import a_receiver
from tests.proofs.waiting import wait_until


def test_what_commits_late_is_not_overtaken(open_house: Open) -> None:
    """Ids are given before the commit: a hold of a lane may have read past a row that it could not see yet."""
    house = open_house(batch_size=1, concurrency=1)
    house.worker()
    house.partners.ready()
    late, soon = house.an_item(1_000), house.an_item(1_000)

    for _ in range(2):
        house.partners.turn(latency_seconds=0.1)
        with house.db() as session:
            made = reserved(session, late, 96)
            house.hold(soon, 96)
            wait_until_in_mid_delivery(house, "partner", lanes=3)
            session.commit()
        house.cancel(made)
        house.partners.turn()
        house.ring()
        wait_until_drained(house)

    check(house)


def test_a_poisonous_event_keeps_nobody_waiting_and_dies(open_house: Open) -> None:
    """It shares its lane with all others: there is no other lane that could show that the receiver is well."""
    with a_receiver() as receiver:
        house = open_house(receiver=receiver, max_attempts=3)
        item = house.an_item(100)
        (poison,) = house.hold(item, lane=0)
        receiver.rule = lambda event: 500 if _creates(event, str(poison)) else 204
        house.partners.ready()
        house.worker()
        house.scheduler()
        wait_until("it is tried", lambda: receiver.asked(str(poison)))

        told = 0
        while not house.log_of("outbox.dead"):
            (other,) = house.hold(item, lane=0)
            wait_until("the other one is told", lambda other=other: receiver.asked(str(other)), within=20)  # type: ignore[misc]
            told += 1
            assert told < 100, "It never dies."
        wait_until_drained(house)

        counted = check(house, dead=1)
        assert counted.attempts == 3
        assert len(house.log_of("outbox.dead")) == 1


def _creates(event: Mapping[str, Any], booking_id: str) -> bool:
    return bool(event["event_type"] == "booking.created" and event["payload"]["booking_id"] == booking_id)
