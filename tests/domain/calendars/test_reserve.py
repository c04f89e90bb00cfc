"""Reserving time: what fits is accepted, at any moment no more than the capacity is taken, and the rest is refused."""

from datetime import timedelta

import pytest
from sqlalchemy import text

from domain import calendars, reservations
from domain.calendars import Period, occupancies
from domain.idempotency import Answered
from domain.items import Item
from domain.reservations import BRIEF, Claim, Deferred, Reschedule, Reservation
from domain.reservations.lifecycle import Status
from domain.runtime.errors import Busy, CapacityInUse, Invalid, NotFree, OutsideOpeningHours, Refusal
from tests.support.builders import (
    FRIDAY,
    Db,
    a_calendar,
    a_request,
    a_time_hold,
    a_time_request,
    an_item,
    hours,
    let_lapse,
    reserve,
    routes_of,
    the,
)


def accepted(db: Db, item: Item, period: Period, quantity: int = 1) -> bool:
    (outcome,) = reserve(db, a_time_request(item, period, quantity))
    assert isinstance(outcome, Answered | NotFree), outcome
    return isinstance(outcome, Answered)


def change(db: Db, one: Reservation, to: reservations.Wanted) -> Reservation | Refusal:
    with db.begin() as session:
        return reservations.change(session, one.id, to, routes=routes_of(db))


def test_a_room_is_reserved_once_at_a_time(db: Db) -> None:
    room = a_calendar(db)

    assert accepted(db, room, hours(10, 12))
    assert not accepted(db, room, hours(11, 13))
    assert not accepted(db, room, hours(10.5, 11.5))
    assert not accepted(db, room, hours(9, 13))


def test_periods_that_touch_do_not_overlap(db: Db) -> None:
    room = a_calendar(db)

    assert accepted(db, room, hours(10, 12))
    assert accepted(db, room, hours(12, 13))
    assert accepted(db, room, hours(9, 10))


def test_what_counts_is_the_greatest_use_at_one_moment(db: Db) -> None:
    """Three reservations of two overlap the wanted period, but never more than two at once."""
    rooms = a_calendar(db, capacity=4)
    for start in (8, 10, 12):
        assert accepted(db, rooms, hours(start, start + 2), 2)

    assert accepted(db, rooms, hours(8, 14), 2)
    assert not accepted(db, rooms, hours(13, 15), 1)


def test_requests_of_one_set_see_each_other(db: Db) -> None:
    room = a_calendar(db)

    outcomes = reserve(db, *(a_time_request(room, hours(start, start + 2)) for start in (8, 9, 10, 11, 12)))

    assert [isinstance(outcome, Answered) for outcome in outcomes] == [True, False, True, False, True]


def test_a_refusal_says_how_many_are_free_throughout(db: Db) -> None:
    rooms = a_calendar(db, capacity=5)
    a_time_hold(db, rooms, hours(10, 12), 3)

    (refusal,) = reserve(db, a_time_request(rooms, hours(11, 14), 4))

    assert isinstance(refusal, NotFree)
    assert (refusal.sku, refusal.asked, refusal.available_quantity) == (rooms.sku, 4, 2)


def test_between_two_reservations_lie_both_buffers(db: Db) -> None:
    room = a_calendar(db, buffer_before_seconds=15 * 60, buffer_after_seconds=30 * 60)
    hold = a_time_hold(db, room, hours(10, 12))

    assert hold.period == hours(10, 12)
    assert not accepted(db, room, hours(12.5, 13))
    assert not accepted(db, room, hours(12.74, 13))
    assert accepted(db, room, hours(12.75, 13))
    assert accepted(db, room, hours(9, 9.25))


def test_time_outside_the_opening_hours_is_refused_with_them(db: Db) -> None:
    room = a_calendar(db, time_zone="Europe/Berlin", opening_hours={"fri": ["09:00-17:00"]})

    (too_early,) = reserve(db, a_time_request(room, hours(6.5, 8)))  # 08:30 to 10:00 in Berlin

    assert isinstance(too_early, OutsideOpeningHours)
    assert (too_early.time_zone, too_early.opening_hours) == ("Europe/Berlin", {"2030-05-03": ["09:00-17:00"]})
    assert accepted(db, room, hours(7, 15))


@pytest.mark.parametrize("ended_by", [Status.CANCELLED, Status.REJECTED])
def test_time_that_was_given_up_is_free_again(db: Db, ended_by: Status) -> None:
    room = a_calendar(db)
    hold = a_time_hold(db, room, hours(10, 12))

    change(db, hold, ended_by)

    assert accepted(db, room, hours(10, 12))


@pytest.mark.parametrize("ended_by", [Status.COMPLETED, Status.NO_SHOW])
def test_time_that_was_used_or_kept_for_nobody_is_not_free_again(db: Db, ended_by: Status) -> None:
    room = a_calendar(db)
    hold = a_time_hold(db, room, hours(10, 12), status=Status.CONFIRMED)

    change(db, hold, ended_by)

    assert not accepted(db, room, hours(11, 12))


@pytest.mark.parametrize("capacity", [1, 2])
def test_the_time_of_a_lapsed_hold_is_free(db: Db, capacity: int) -> None:
    rooms = a_calendar(db, capacity=capacity)
    hold = a_time_hold(db, rooms, hours(10, 12), capacity)
    let_lapse(db, hold.id)

    assert accepted(db, rooms, hours(11, 13), capacity)
    assert the(db, str(hold.id)).status is Status.EXPIRED


def test_a_lapsed_hold_that_is_being_confirmed_is_not_taken_for_free(db: Db) -> None:
    room = a_calendar(db)
    hold = a_time_hold(db, room, hours(10, 12))
    let_lapse(db, hold.id)

    with db.begin() as session:
        reservations.lock(session, [hold.id])
        (outcome,) = reserve(db, a_time_request(room, hours(11, 13)))

    assert isinstance(outcome, Deferred)


def test_a_confirmed_hold_keeps_its_time_after_its_end(db: Db) -> None:
    room = a_calendar(db)
    hold = a_time_hold(db, room, hours(10, 12))
    change(db, hold, Status.CONFIRMED)
    let_lapse(db, hold.id)

    assert not accepted(db, room, hours(11, 13))


def test_a_hold_without_end_never_lapses(db: Db) -> None:
    room = a_calendar(db)

    hold = a_time_hold(db, room, hours(10, 12), hold_for=None)

    assert (hold.status, hold.expires_at) == (Status.PENDING, None)
    with db.begin() as session:
        assert reservations.expire(session, 10, routes_of(db)) == 0
    assert not accepted(db, room, hours(11, 13))
    confirmed = change(db, hold, Status.CONFIRMED)
    assert isinstance(confirmed, Reservation)


def test_lines_of_several_calendars_are_reserved_as_a_whole(db: Db) -> None:
    room, parking = a_calendar(db), a_calendar(db)
    a_time_hold(db, parking, hours(10, 12))
    both = [Claim(room.id, 1, hours(11, 13)), Claim(parking.id, 1, hours(11, 13))]

    (refusal,) = reserve(db, a_time_request(room, hours(11, 13), lines=tuple(both)))

    assert isinstance(refusal, NotFree)
    assert refusal.sku == parking.sku
    later = a_time_hold(db, room, hours(12, 13), lines=tuple(one._replace(period=hours(12, 13)) for one in both))
    assert not accepted(db, room, hours(12, 13))
    assert not accepted(db, parking, hours(12, 13))
    change(db, later, Status.CANCELLED)
    assert accepted(db, room, hours(12, 13))
    assert accepted(db, parking, hours(12, 13))


def test_a_period_is_for_calendars_and_only_for_them(db: Db) -> None:
    stock, room = an_item(db), a_calendar(db, capacity=2)

    outcomes = reserve(
        db,
        a_time_request(stock, hours(10, 12)),
        a_request(room),
        a_time_request(
            room, hours(10, 12), lines=(Claim(room.id, 1, hours(10, 12)), Claim(stock.id, 1, hours(10, 12)))
        ),
        a_time_request(room, hours(10, 12), 3),
    )

    assert [(type(one), getattr(one, "field", "")) for one in outcomes] == [
        (Invalid, "start"),
        (Invalid, "start"),
        (Invalid, "start"),
        (Invalid, "quantity"),
    ]


def test_a_reservation_is_rescheduled_if_the_new_time_is_free(db: Db) -> None:
    room = a_calendar(db)
    first, second = a_time_hold(db, room, hours(10, 12)), a_time_hold(db, room, hours(14, 16))

    overlapping_itself = change(db, first, Reschedule(hours(11, 13)))
    refused = change(db, second, Reschedule(hours(12, 15)))

    assert isinstance(overlapping_itself, Reservation)
    assert (overlapping_itself.period, overlapping_itself.version) == (hours(11, 13), 2)
    assert isinstance(refused, NotFree)
    assert the(db, str(second.id)) == second
    assert accepted(db, room, hours(10, 11))
    assert not accepted(db, room, hours(12, 13))


def test_a_smaller_quantity_gives_the_rest_back(db: Db) -> None:
    rooms = a_calendar(db, capacity=5)
    hold = a_time_hold(db, rooms, hours(10, 12), 5)

    change(db, hold, Reschedule(quantity=2))

    assert not accepted(db, rooms, hours(10, 12), 4)
    assert accepted(db, rooms, hours(10, 12), 3)


def test_a_reservation_that_has_ended_is_not_rescheduled(db: Db) -> None:
    room = a_calendar(db)
    hold = a_time_hold(db, room, hours(10, 12))
    change(db, hold, Status.CANCELLED)

    refused = change(db, hold, Reschedule(hours(14, 16)))

    assert isinstance(refused, Refusal)
    assert accepted(db, room, hours(14, 16))


def test_rescheduling_expires_a_lapsed_hold_in_its_way(db: Db) -> None:
    room = a_calendar(db)
    hold, lapsed = a_time_hold(db, room, hours(10, 12)), a_time_hold(db, room, hours(14, 16))
    let_lapse(db, lapsed.id)

    moved = change(db, hold, Reschedule(hours(15, 17)))

    assert isinstance(moved, Reservation)
    assert the(db, str(lapsed.id)).status is Status.EXPIRED


def test_a_lapsed_hold_that_is_being_confirmed_makes_a_reschedule_wait_and_is_not_called_taken(db: Db) -> None:
    room = a_calendar(db)
    hold, lapsed = a_time_hold(db, room, hours(10, 12)), a_time_hold(db, room, hours(14, 16))
    let_lapse(db, lapsed.id)

    with db.begin() as session:
        reservations.lock(session, [lapsed.id])
        with pytest.raises(Busy):
            change(db, hold, Reschedule(hours(15, 17)))

    assert the(db, str(hold.id)) == hold
    assert isinstance(change(db, hold, Reschedule(hours(15, 17))), Reservation)


def test_a_block_keeps_everybody_out_until_it_is_cancelled(db: Db) -> None:
    room = a_calendar(db)
    block = a_time_hold(db, room, hours(10, 12), status=Status.BLOCKED)

    assert (block.status, block.expires_at) == (Status.BLOCKED, None)
    assert not accepted(db, room, hours(11, 13))
    change(db, block, Status.CANCELLED)
    assert accepted(db, room, hours(11, 13))


def test_the_capacity_never_becomes_less_than_what_is_in_use_from_now_on(db: Db) -> None:
    rooms = a_calendar(db, capacity=5)
    a_time_hold(db, rooms, hours(10, 12), 2)
    a_time_hold(db, rooms, hours(11, 13), 1)
    a_time_hold(db, rooms, hours(12, 14), 2)

    with db.begin() as session, pytest.raises(CapacityInUse) as refused:
        calendars.amend(session, rooms.id, capacity=2)
    with db.begin() as session:
        amended = calendars.amend(session, rooms.id, capacity=3)

    assert (refused.value.in_use, amended.capacity) == (3, 3)


def test_a_set_of_requests_for_many_calendars_by_id_and_by_sku(db: Db) -> None:
    rooms = [a_calendar(db) for _ in range(6)]
    for room in rooms[::2]:
        a_time_hold(db, room, hours(10, 12))
    by_sku = [a_time_request(room, hours(11, 13), lines=(Claim(room.sku, 1, hours(11, 13)),)) for room in rooms]

    outcomes = reserve(db, *by_sku, *(a_time_request(room, hours(12, 14)) for room in rooms))

    assert [isinstance(outcome, Answered) for outcome in outcomes] == [False, True] * 3 + [True, False] * 3


def test_a_hold_that_is_extended_keeps_its_time(db: Db) -> None:
    room = a_calendar(db)
    hold = a_time_hold(db, room, hours(10, 12), hold_for=timedelta(milliseconds=400))

    change(db, hold, reservations.Extension(timedelta(minutes=5)))
    with db.begin() as session:
        session.execute(text("SELECT pg_sleep(0.5)"))  # which is longer than the hold was to last

    assert not accepted(db, room, hours(11, 13))


#: So many minutes one after another, of one unit each.
MINUTES = 500
FILL = text("""
    INSERT INTO calendar_occupancies
        (reservation_id, position, item_id, units, blocked_from, blocked_until, is_exclusive)
    SELECT gen_random_uuid(), 1, :item_id, 1, start, start + interval '1 minute', false
    FROM generate_series(1, :minutes) AS n, LATERAL (SELECT :start + n * interval '1 minute' AS start) AS minutes
""")


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a set read as little as can be."""
    monkeypatch.setattr(occupancies, "READ", 1)


def a_busy_calendar(db: Db, capacity: int) -> Item:
    calendar = a_calendar(db, capacity)
    with db.begin() as session:
        session.execute(text("SET LOCAL session_replication_role = replica"))
        session.execute(FILL, {"item_id": calendar.id, "minutes": MINUTES, "start": FRIDAY})
    return calendar


@pytest.mark.parametrize(
    ("capacity", "quantity", "brief", "thorough"),
    [(2, 2, NotFree, NotFree), (3, 2, Deferred, Answered), (2, 1, Deferred, Answered)],
)
@pytest.mark.usefixtures("narrow")
def test_a_brief_set_reads_a_part_of_what_is_taken_and_refuses_or_defers(
    db: Db, capacity: int, quantity: int, brief: type[object], thorough: type[object]
) -> None:
    asked = a_time_request(a_busy_calendar(db, capacity), Period(FRIDAY, FRIDAY + timedelta(days=700)), quantity)

    with db.begin() as session:
        (first,) = reservations.reserve(session, [asked], routes_of(db), effort=BRIEF)
    (then,) = reserve(db, asked)

    assert (type(first), type(then)) == (brief, thorough)


@pytest.mark.usefixtures("narrow")
def test_a_short_period_of_a_busy_calendar_is_decided_by_a_brief_set(db: Db) -> None:
    minute = timedelta(minutes=1)
    asked = a_time_request(a_busy_calendar(db, 2), Period(FRIDAY + 10 * minute, FRIDAY + 90 * minute))

    with db.begin() as session:
        outcomes = reservations.reserve(session, [asked, asked], routes_of(db), effort=BRIEF)

    assert [type(one) for one in outcomes] == [Answered, NotFree]


@pytest.mark.usefixtures("narrow")
def test_what_a_set_takes_of_a_busy_calendar_counts_for_its_other_requests(db: Db) -> None:
    """One of them may take what was free at another time, so the others wait for the next set."""
    long = Period(FRIDAY, FRIDAY + timedelta(days=700))
    asked = a_time_request(a_busy_calendar(db, 3), long)

    assert [type(one) for one in reserve(db, asked, asked, asked)] == [Answered, Answered, Deferred]
    assert [type(one) for one in reserve(db, asked, asked)] == [NotFree, NotFree]


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize(("capacity", "quantity", "succeeds"), [(2, 2, False), (3, 2, True)])
def test_a_reservation_is_rescheduled_over_more_than_is_read_at_first(
    db: Db, capacity: int, quantity: int, succeeds: bool
) -> None:
    hold = a_time_hold(db, a_busy_calendar(db, capacity), hours(-2, -1), quantity)

    outcome = change(db, hold, Reschedule(Period(FRIDAY, FRIDAY + timedelta(days=700))))

    assert isinstance(outcome, Reservation if succeeds else NotFree)
