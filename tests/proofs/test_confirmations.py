"""The confirmation service that is slow, out, unwilling or shaky: what a hold comes to."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from sqlalchemy import func, select

from domain.outbox.table import outbox
from domain.reservations.table import reservations
from tests.proofs.checker import check, count, statuses, wait_until_drained
from tests.proofs.cluster import House
from tests.proofs.conftest import Open
from tests.proofs.waiting import wait_until


def test_an_answer_that_comes_too_late_confirms_nothing(open_house: Open) -> None:
    """The service says yes, 2 s after the hold has lapsed."""
    house = open_house()
    house.worker()
    house.scheduler()
    house.partners.ready()
    house.partners.turn(latency_seconds=4)
    item = house.an_item(5)

    made = house.hold(item, 5, lasting=timedelta(seconds=2))
    wait_until("the service is being asked", lambda: house.in_hand("confirmation"))
    wait_until("the holds are gone", lambda: statuses(house, made) == {"EXPIRED": 5})
    house.partners.turn()
    wait_until_drained(house)

    assert statuses(house, made) == {"EXPIRED": 5}
    assert house.available(item) == 5
    assert {house.partners.bookings()[str(one)] for one in made} == {"released"}
    check(house)


def test_a_service_that_is_out_confirms_nothing_afterwards(open_house: Open) -> None:
    """Holds lapse one after the other during the outage: there is nothing to ask for them, and that is no recovery."""
    house = open_house()
    house.partners.ready()
    house.partners.turn(outage=True)
    item = house.an_item(10)
    lasting = [house.hold(item, lane=0)[0] for _ in range(5)]
    house.worker()
    house.scheduler()
    wait_until("the outage is noticed", lambda: _outages_noticed(house))

    lapsing = [house.hold(item, lane=0, lasting=timedelta(seconds=1))[0] for _ in range(5)]
    wait_until("the lapsed holds are let go of", lambda: _releases(house) == 5)
    noticed = _outages_noticed(house)
    wait_until("the outage is noticed again", lambda: _outages_noticed(house) > noticed)
    outage = count(house)
    house.partners.turn()
    wait_until_drained(house)

    assert (outage.attempts, outage.dead) == (0, 0)
    assert statuses(house, lapsing) == {"EXPIRED": 5}
    assert statuses(house, lasting) == {"CONFIRMED": 5}
    assert house.available(item) == 5
    assert {house.partners.bookings()[str(one)] for one in lapsing} == {"released"}
    assert check(house).attempts == 0


def test_a_refusal_cancels_and_gives_the_stock_back(open_house: Open) -> None:
    house = open_house()
    wanted, unwanted = house.an_item(20), house.an_item(20, sku="UNWANTED")
    house.partners.ready()
    house.partners.turn(refuse_skus=["UNWANTED"])
    house.worker()
    house.scheduler()

    fine, refused = house.hold(wanted, 20), house.hold(unwanted, 20)
    wait_until_drained(house)

    assert statuses(house, fine) == {"CONFIRMED": 20}
    assert statuses(house, refused) == {"CANCELLED": 20}
    assert (house.available(wanted), house.available(unwanted)) == (0, 20)
    assert all("422" in reason for reason in _reasons(house, refused))
    assert check(house).attempts == 0


def test_errors_are_tried_again_until_there_is_an_answer(open_house: Open) -> None:
    """Three answers in ten are 500, of both partners."""
    house = open_house()
    item = house.an_item(12)
    house.partners.ready()
    house.partners.turn(error_rate=0.3)
    house.worker()
    house.scheduler()

    made = house.hold(item, 12)
    wait_until("all are confirmed", lambda: statuses(house, made) == {"CONFIRMED": 12})
    house.partners.turn()
    wait_until_drained(house)

    check(house)


def _outages_noticed(house: House) -> int:
    return sum(event["destination"] == "confirmation" for event in house.log_of("destination.down"))


def _releases(house: House) -> int:
    with house.db.begin() as session:
        wanted = select(func.count()).where(outbox.c.type == "reservation_release")
        return session.execute(wanted).scalar_one()


def _reasons(house: House, ids: Sequence[UUID]) -> Sequence[str]:
    with house.db.begin() as session:
        wanted = select(reservations.c.cancellation_reason).where(reservations.c.id.in_(ids))
        return [reason or "" for reason in session.execute(wanted).scalars()]
