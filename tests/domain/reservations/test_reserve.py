"""Reserving: never oversold, and the same request twice has one effect."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, func, select, text

from domain import reservations
from domain.idempotency import Answered, requests
from domain.outbox.table import outbox
from domain.reservations import Claim, Filter, KeyRace
from domain.reservations.lifecycle import HOLDING, Status
from domain.reservations.table import history
from domain.runtime.database import connect, driver_of, sessions
from domain.runtime.errors import IdempotencyKeyReused, ReferenceTaken, SoldOut, UnknownItem
from domain.runtime.settings import Settings
from tests.support.builders import (
    ROUTES,
    Db,
    a_basket,
    a_hold,
    a_request,
    an_item,
    an_overdue_hold,
    available,
    reserve,
    routes_of,
    stored_as,
)
from tests.support.invariants import violations
from tests.support.waiting import wait_until_blocked


def test_a_hold_takes_its_units_and_records_its_history_and_its_events(db: Db) -> None:
    item = an_item(db, quantity=10)

    hold = a_hold(db, item, quantity=3)

    assert available(db, item) == 7
    assert (hold.status, hold.version, hold.quantity) == (Status.PENDING, 1, 3)
    with db.begin() as session:
        recorded = session.execute(select(outbox.c.type, outbox.c.destination).order_by(outbox.c.id)).all()
        assert recorded == [("booking.created", "events"), ("reservation_confirm", "confirmation")]
        assert session.execute(select(history.c.kind, history.c.to_status)).all() == [("created", "PENDING")]


def test_the_requests_of_one_set_are_decided_one_after_the_other_on_the_same_stock(db: Db) -> None:
    item = an_item(db, quantity=3)

    first, second, third = reserve(db, a_request(item, 2), a_request(item, 2), a_request(item, 1))

    assert isinstance(first, Answered) and isinstance(third, Answered)
    assert isinstance(second, SoldOut) and second.available_quantity == 1
    assert available(db, item) == 0


def test_a_refusal_writes_nothing(db: Db) -> None:
    item = an_item(db, quantity=1)

    (refused,) = reserve(db, a_request(item, 2, key="k"))

    assert isinstance(refused, SoldOut) and (refused.asked, refused.available_quantity) == (2, 1)
    with db.begin() as session:
        for table in (requests, outbox, history):
            assert session.execute(select(func.count()).select_from(table)).scalar_one() == 0


def test_an_item_can_be_named_by_its_sku(db: Db) -> None:
    item = an_item(db, quantity=2, sku="4006381333931")

    by_sku, by_id = reserve(db, a_request(item, lines=(Claim("4006381333931", 1),)), a_request(item))

    assert isinstance(by_sku, Answered) and isinstance(by_id, Answered)
    assert available(db, item) == 0


def test_a_set_takes_two_round_trips_before_its_commit(db: Db, tmp_path: Path) -> None:
    item, other = an_item(db, quantity=9, sku="A"), an_item(db, quantity=9)
    wanted = [a_request(item, key="k"), a_request(item, lines=(Claim("A", 1),)), a_basket((item, 1), (other, 2))]

    with db() as session, (tmp_path / "sent").open("wb") as sent:
        connection = driver_of(session).pgconn
        connection.trace(sent.fileno())
        assert all(isinstance(one, Answered) for one in reservations.reserve(session, wanted, ROUTES))
        connection.untrace()

    # psycopg sends one more after BEGIN, and does not wait for its answer.
    assert (tmp_path / "sent").read_text().count("Sync") == 1 + 2


def test_an_unknown_item_is_refused_alone(db: Db) -> None:
    item = an_item(db)

    unknown, accepted = reserve(db, a_request(item, lines=(Claim(item.id + 1, 1),)), a_request(item))

    assert isinstance(unknown, UnknownItem)
    assert isinstance(accepted, Answered)


def test_a_repeated_key_gets_the_first_answer_again(db: Db) -> None:
    item = an_item(db, quantity=5)

    (first,) = reserve(db, a_request(item, 2, key="k"))
    (again,) = reserve(db, a_request(item, 2, key="k"))

    assert isinstance(first, Answered) and isinstance(again, Answered)
    assert (again.text, first.replayed, again.replayed) == (first.text, False, True)
    assert available(db, item) == 3


def test_a_repeated_key_within_one_set_acts_once(db: Db) -> None:
    item = an_item(db, quantity=5)

    first, again, other = reserve(
        db, a_request(item, 2, key="k"), a_request(item, 2, key="k"), a_request(item, 1, key="k")
    )

    assert isinstance(first, Answered) and isinstance(again, Answered)
    assert again.text == first.text and again.replayed
    assert isinstance(other, IdempotencyKeyReused)
    assert available(db, item) == 3


def test_each_request_of_a_set_is_answered_in_its_own_format(db: Db) -> None:
    """HTTP, gRPC and an import share the sets, and a repeat gets the format of the first answer."""
    item = an_item(db)

    first, second = reserve(
        db,
        a_request(item, 2, key="k", render=lambda made: f"{made.quantity} units"),
        a_request(item, 3, render=lambda made: f"<{made.quantity}>"),
    )
    (again,) = reserve(db, a_request(item, 2, key="k"))

    assert (first, second) == (Answered("2 units"), Answered("<3>"))
    assert again == Answered("2 units", replayed=True)


def test_a_key_may_try_again_after_a_refusal(db: Db) -> None:
    item = an_item(db, quantity=1)
    hold = a_hold(db, item)
    (refused,) = reserve(db, a_request(item, 1, key="k"))

    with db.begin() as session:
        reservations.change(session, hold.id, Status.CANCELLED, routes=routes_of(db))
    (accepted,) = reserve(db, a_request(item, 1, key="k"))

    assert isinstance(refused, SoldOut)
    assert isinstance(accepted, Answered) and not accepted.replayed


def test_a_key_with_another_payload_is_refused(db: Db) -> None:
    item = an_item(db, quantity=5)
    reserve(db, a_request(item, 2, key="k"))

    (reused,) = reserve(db, a_request(item, 3, key="k"))

    assert isinstance(reused, IdempotencyKeyReused)
    assert available(db, item) == 3


def test_a_set_whose_key_races_with_a_request_for_another_item_is_rolled_back(db: Db) -> None:
    item, other = an_item(db, quantity=5), an_item(db, quantity=5)
    with db() as racing, ThreadPoolExecutor(1) as elsewhere:
        reservations.reserve(racing, [a_request(other, key="k")], routes_of(db))
        duplicate = elsewhere.submit(reserve, db, a_request(item, key="k"))
        wait_until_blocked(db)
        racing.commit()

        with pytest.raises(KeyRace):
            duplicate.result()

    assert available(db, item) == 5


def test_overdue_holds_are_taken_back_when_stock_runs_short(db: Db) -> None:
    item = an_item(db, quantity=10)
    a_hold(db, item, quantity=3)
    overdue = [an_overdue_hold(db, item, quantity=3), an_overdue_hold(db, item, quantity=3)]

    (accepted,) = reserve(db, a_request(item, 7))

    assert isinstance(accepted, Answered)
    assert available(db, item) == 0
    assert stored_as(db, Status.EXPIRED) == {one.id for one in overdue}


def test_confirmed_reservations_and_holds_that_are_not_overdue_are_not_taken_back(db: Db) -> None:
    item = an_item(db, quantity=9)
    sold = a_hold(db, item, quantity=3)
    with db.begin() as session:
        reservations.change(session, sold.id, Status.CONFIRMED, routes=routes_of(db))
    a_hold(db, item, quantity=3)
    an_overdue_hold(db, item, quantity=3)

    (refused,) = reserve(db, a_request(item, 4))

    assert isinstance(refused, SoldOut) and refused.available_quantity == 3


@pytest.mark.parametrize("seconds", [1, 604_800])
def test_a_hold_lasts_for_as_long_as_its_request_asks(db: Db, seconds: int) -> None:
    item = an_item(db)

    reserve(db, a_request(item, hold_for=timedelta(seconds=seconds)))

    with db.begin() as session:
        (hold,) = reservations.find(session, Filter(), limit=1).reservations
    assert hold.expires_at is not None
    assert hold.expires_at - hold.created_at == timedelta(seconds=seconds)


def test_tables_that_were_vacuumed_while_they_were_empty_are_read_by_their_indexes(
    db: Db, engine: Engine, settings: Settings
) -> None:
    """PostgreSQL takes such a table for empty until the next vacuum, and keeps the plans that it makes meanwhile."""
    item = an_item(db, quantity=1_000)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for name in ("reservations", "idempotency_requests", "outbox"):
            connection.execute(text(f"VACUUM ANALYZE {name}"))
    writer = sessions(connect(settings, connections=1, by_index=True))

    # A statement is planned once and for all after ten executions at the latest.
    for number in range(12):
        reserve(writer, *(a_request(item, key=f"{number}-{n}") for n in range(5)))
    with writer.begin() as session:
        reservations.reserve(session, [a_request(item, key="last")], routes_of(writer))
        scans = session.execute(text("SELECT relname FROM pg_stat_xact_user_tables WHERE seq_scan > 0")).scalars().all()
    writer.kw["bind"].dispose()

    assert not {"reservations", "idempotency_requests", "outbox"} & set(scans)


def test_a_reservation_belongs_to_the_client_that_asked_for_it(db: Db) -> None:
    item = an_item(db)

    reserve(db, a_request(item, client_id="shop-7"))
    reserve(db, a_request(item))

    with db.begin() as session:
        newest, oldest = reservations.find(session, Filter(), limit=2).reservations
    assert (newest.client_id, oldest.client_id) == ("anonymous", "shop-7")


@pytest.mark.parametrize("status", sorted(HOLDING))
def test_an_import_chooses_the_status_the_time_and_the_reference(db: Db, status: Status) -> None:
    item = an_item(db, quantity=10)
    a_hold(db, item)
    made_at = datetime(2026, 1, 31, 12, tzinfo=UTC)

    reserve(db, a_request(item, 3, status=status, made_at=made_at, external_reference="B-1", client_id="old-system"))

    with db.begin() as session:
        _, imported = reservations.find(session, Filter(), limit=2).reservations
        types = session.execute(select(outbox.c.type).where(outbox.c.aggregate_id == imported.id)).scalars().all()
    assert (imported.status, imported.created_at, imported.external_reference) == (status, made_at, "B-1")
    assert (imported.expires_at is None) == (status is not Status.PENDING)
    assert (imported.confirmed_at == made_at) == (status in {Status.CONFIRMED, Status.CHECKED_IN})
    assert (imported.checked_in_at == made_at) == (status is Status.CHECKED_IN)
    assert types == ["booking.created", *(["reservation_confirm"] if status is Status.PENDING else [])]
    assert available(db, item) == 6
    assert violations(db) == {}


def test_nothing_is_made_in_the_future(db: Db) -> None:
    reserve(db, a_request(an_item(db), made_at=datetime(2999, 1, 1, tzinfo=UTC)))

    with db.begin() as session:
        (made,) = reservations.find(session, Filter(), limit=1).reservations
    assert made.created_at == made.updated_at


def test_an_outside_reference_is_unique_among_those_of_a_client(db: Db) -> None:
    item = an_item(db)
    mine, theirs = (a_request(item, external_reference="B-1", client_id=client) for client in ("mine", "theirs"))

    first, twice, other = reserve(db, mine, mine, theirs)
    (again,) = reserve(db, mine)

    assert isinstance(first, Answered) and isinstance(other, Answered)
    assert isinstance(twice, ReferenceTaken) and isinstance(again, ReferenceTaken)
    assert available(db, item) == 8


def test_a_set_whose_reference_races_with_a_request_for_another_item_is_rolled_back(db: Db) -> None:
    item, other = an_item(db), an_item(db)
    with db() as racing, ThreadPoolExecutor(1) as elsewhere:
        reservations.reserve(racing, [a_request(other, external_reference="B-1")], routes_of(db))
        late = elsewhere.submit(reserve, db, a_request(item), a_request(item, external_reference="B-1"))
        wait_until_blocked(db)
        racing.commit()

        with pytest.raises(KeyRace) as raced:
            late.result()

    assert raced.value.places == [1]
    assert available(db, item) == 10
