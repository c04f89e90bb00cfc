"""Leases: the lanes of a process are renewed while it lives, and released when it ends."""

import socket
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

import pytest
from sqlalchemy import func, make_url, select, update

from domain.outbox import LEASE, LeasedLane
from domain.outbox.delivery import breaker
from domain.outbox.table import destinations, lanes
from domain.runtime import database
from domain.runtime.settings import Settings
from tests.conformance.proxy import Proxy
from tests.support.builders import Db
from tests.support.outbox import SHOP, a_lane, claimed, destination
from tests.support.waiting import wait_until
from worker.relay.leases import Leases, clock


@pytest.fixture
def leases(shop: Db) -> Iterator[Leases]:
    leases = Leases(shop)
    yield leases
    leases.close()


def leased_until(db: Db, lane: LeasedLane) -> datetime:
    mine = select(lanes.c.leased_until).where(lanes.c.destination == lane.destination, lanes.c.lane == lane.number)
    with db.begin() as session:
        moment: datetime = session.execute(mine).scalar_one()
    return moment


def test_all_leased_lanes_are_renewed_and_no_others(shop: Db, leases: Leases) -> None:
    kept, dropped = a_lane(shop), a_lane(shop)
    before = leased_until(shop, kept), leased_until(shop, dropped)
    with leases.renewing(dropped, claimed_at=clock()):
        pass

    with leases.renewing(kept, claimed_at=clock()):
        wait_until("the lease is renewed", lambda: leased_until(shop, kept) > before[0])

    assert leased_until(shop, dropped) == before[1]


def test_a_delivery_that_never_ends_loses_its_lane(shop: Db, leases: Leases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.relay.leases.LONGEST_RUN_SECONDS", 0.0)
    hanging, _ = a_lane(shop), a_lane(shop)

    with leases.renewing(hanging, claimed_at=clock()):
        wait_until(
            "another claim has the lane", lambda: hanging.number in {lane.number for lane in [claimed(shop)] if lane}
        )


def test_a_lease_that_was_lost_is_not_taken_back(shop: Db, leases: Leases) -> None:
    lost, kept = a_lane(shop), a_lane(shop)
    before = leased_until(shop, kept)
    with shop.begin() as session:
        session.execute(update(lanes).where(lanes.c.lane == lost.number).values(leased_until=None))
    new = a_lane(shop)
    until = leased_until(shop, new)

    with leases.renewing(lost, claimed_at=clock()), leases.renewing(kept, claimed_at=clock()):
        wait_until("the lease is renewed", lambda: leased_until(shop, kept) > before)

    assert leased_until(shop, new) == until


def test_a_lane_that_is_being_settled_does_not_keep_the_others_from_being_renewed(shop: Db, leases: Leases) -> None:
    settling, other = a_lane(shop), a_lane(shop)
    before = leased_until(shop, other)

    with (
        shop.begin() as session,
        leases.renewing(settling, claimed_at=clock()),
        leases.renewing(other, claimed_at=clock()),
    ):
        session.execute(select(lanes).where(lanes.c.lane == settling.number).with_for_update())
        wait_until("the other lease is renewed", lambda: leased_until(shop, other) > before)


def test_the_lease_of_a_probe_that_takes_long_is_renewed(shop: Db, leases: Leases) -> None:
    with shop.begin() as session:
        session.execute(update(destinations).values(failures=1, open_until=func.now()))
    probe = a_lane(shop)
    before = destination(shop).open_until

    with leases.renewing(probe, claimed_at=clock()):
        wait_until("the lease of the probe is renewed", lambda: destination(shop).open_until > before)
        assert claimed(shop) is None

    assert probe.probing


def test_a_probe_that_has_ended_does_not_delay_others(shop: Db, leases: Leases) -> None:
    with shop.begin() as session:
        session.execute(update(destinations).values(failures=1, open_until=func.now()))
    probe = a_lane(shop)
    before = leased_until(shop, probe)
    with shop.begin() as session:
        breaker.close(session, SHOP)

    with leases.renewing(probe, claimed_at=clock()):
        wait_until("the lease is renewed", lambda: leased_until(shop, probe) > before)

    assert destination(shop).open_until is None


class Garbling(Proxy):
    """A proxy before PostgreSQL that makes the name of the destination in its answers one that is no text."""

    def __init__(self, url: str) -> None:
        address = make_url(url)
        super().__init__(f"{address.query['host']}/.s.PGSQL.5432")
        self.url = str(address.set(host="127.0.0.1", port=self.port, query={}))
        self.is_garbling = False
        self.garbled = 0

    def _passes_on(self, answered: bytes, client: socket.socket) -> bool:
        name = SHOP.encode()
        if self.is_garbling and name in answered:
            self.garbled += 1
            answered = answered.replace(name, b"\xff" * len(name))
        return super()._passes_on(answered, client)


def test_renewing_continues_after_an_answer_of_the_database_that_nobody_has_foreseen(
    shop: Db, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    proxy = Garbling(settings.database_url)
    engine = database.connect(settings.model_copy(update={"database_url": proxy.url}), connections=1)
    leases = Leases(database.sessions(engine))
    lane = a_lane(shop)
    with leases.renewing(lane, claimed_at=clock()):
        proxy.is_garbling = True
        wait_until("it was answered nonsense twice", lambda: proxy.garbled >= 2)
        proxy.is_garbling = False
        before = leased_until(shop, lane)
        wait_until("the lease is renewed", lambda: leased_until(shop, lane) > before)
    leases.close()
    engine.dispose()
    proxy.close()

    said = capsys.readouterr()
    assert "thread.round_failed" in said.out + said.err
    assert "it is tried again in a second" in said.out + said.err


def test_a_process_that_ends_while_its_database_is_down_does_not_break(shop: Db, settings: Settings) -> None:
    engine = database.connect(
        settings.model_copy(update={"database_url": "postgresql://127.0.0.1:1/nowhere"}), connections=1
    )
    leases = Leases(database.sessions(engine))

    with leases.renewing(a_lane(shop), claimed_at=clock()):
        leases.close()


def test_a_run_that_raises_is_renewed_no_longer(shop: Db, leases: Leases) -> None:
    lane = a_lane(shop)

    with pytest.raises(ValueError, match="poison"), leases.renewing(lane, claimed_at=clock()):
        raise ValueError("poison")

    assert not leases._leased


def test_a_process_that_ends_releases_the_lane_of_a_call_that_has_not_ended(shop: Db) -> None:
    leases = Leases(shop)
    lane, other = a_lane(shop), a_lane(shop)

    with leases.renewing(lane, claimed_at=clock()):
        leases.close()

    again = claimed(shop)
    assert again is not None and again.number == lane.number
    assert claimed(shop) is None, f"lane {other.number} was never renewed by it"


def test_a_lane_is_held_until_its_lease_was_not_renewed_for_too_long(
    shop: Db, leases: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    lane, other = a_lane(shop), a_lane(shop)
    with leases.renewing(lane, claimed_at=clock()):
        assert leases.holds(lane)
        assert not leases.holds(other)
        monkeypatch.setattr("worker.relay.leases.RENEW_SECONDS", 60.0)
        wait_until("its lease is over", lambda: not leases.holds(lane))


def test_a_lane_that_was_claimed_long_ago_is_held_once_it_was_renewed(shop: Db, leases: Leases) -> None:
    lane = a_lane(shop)

    with leases.renewing(lane, claimed_at=clock() - LEASE.total_seconds()):
        assert not leases.holds(lane), "the process may have been frozen since the claim"
        wait_until("it is renewed", lambda: leases.holds(lane))


def test_a_lane_that_another_worker_has_claimed_is_never_held_again(shop: Db, leases: Leases) -> None:
    lost, kept = a_lane(shop), a_lane(shop)
    with shop.begin() as session:
        session.execute(update(lanes).where(lanes.c.lane == lost.number).values(leased_until=None))
    assert a_lane(shop).number == lost.number
    long_ago = clock() - LEASE.total_seconds()

    with leases.renewing(lost, claimed_at=long_ago), leases.renewing(kept, claimed_at=long_ago):
        wait_until("the other one is renewed", lambda: leases.holds(kept))
        assert not leases.holds(lost)


def test_a_run_holds_its_lane_whatever_it_has_found_out_about_it(shop: Db, leases: Leases) -> None:
    lane = a_lane(shop)

    with leases.renewing(lane, claimed_at=clock()):
        assert leases.holds(replace(lane, probing=True, has_due_rows=False, low_watermark=7))
