"""Real bookings of two hotels, replayed: with as many rooms as they needed all are accepted, with fewer the rest."""

from collections import Counter

import pytest
from sqlalchemy import select

from domain.reservations.table import reservations as table
from tests.support.builders import Db, routes_of
from tests.support.hotel.bookings import PART, Booking, count, read
from tests.support.hotel.replay import SET_SIZE, STATUSES, Replay
from tests.support.invariants import violations

pytestmark = pytest.mark.slow

BOOKINGS = read(PART)


def replayed(db: Db, capacities: dict[str, int]) -> Replay:
    replay = Replay(db, routes_of(db), capacities)
    replay.open()
    replay.run(BOOKINGS)
    return replay


def check_how_they_ended(db: Db, replay: Replay, accepted: list[Booking]) -> None:
    with db.begin() as session:
        ended = dict(map(tuple, session.execute(select(table.c.id, table.c.status))))
    assert {replay.made[one.number]: STATUSES[one.ended_as] for one in accepted} == ended
    assert violations(db) == {}


def test_with_as_many_rooms_as_they_needed_all_bookings_are_accepted_and_end_as_they_did(db: Db) -> None:
    replay = replayed(db, dict(count(BOOKINGS, SET_SIZE).most))

    assert replay.refused == set()
    assert len(Counter(one.ended_as for one in BOOKINGS)) == 3 and any(one.nights == 0 for one in BOOKINGS)
    check_how_they_ended(db, replay, list(BOOKINGS))


def test_with_one_room_less_exactly_those_are_refused_for_which_there_is_none(db: Db) -> None:
    fewer = {rooms: max(1, most - 1) for rooms, most in count(BOOKINGS, SET_SIZE).most.items()}
    expected = count(BOOKINGS, SET_SIZE, fewer).refused

    replay = replayed(db, fewer)

    assert 0 < len(expected) < len(BOOKINGS)
    assert replay.refused == expected
    check_how_they_ended(db, replay, [one for one in BOOKINGS if one.number not in expected])
