"""bin/why: why an item can't be reserved now, or a reservation can't be changed, and what is in the way."""

import json

from domain import reservations
from domain.reservations.lifecycle import Status
from tests.support.builders import (
    Db,
    a_calendar,
    a_hold,
    a_time_hold,
    an_item,
    an_overdue_hold,
    hours,
    let_lapse,
    routes_of,
)
from tests.support.commands import on_one_line, run_command

NO_ID = "01939b52-3a1e-7000-8000-5c1f0e6a9d21"

FRIDAY = "--start", "2030-05-03T10:00:00Z", "--end", "2030-05-03T12:00:00Z"


def test_what_can_be_reserved_is_said_to_be_free(db: Db) -> None:
    a_calendar(db, sku="ROOM-1")

    run = run_command("why", "--item", "ROOM-1", *FRIDAY)

    assert (run.returncode, run.stdout) == (0, "1 unit of ROOM-1 can be reserved now.\n")


def test_what_is_in_the_way_is_shown_and_when_a_hold_lapses(db: Db) -> None:
    room = a_calendar(db, capacity=2, sku="ROOM-1", buffer_after_seconds=3_600)
    hold = a_time_hold(db, room, hours(9, 10.5))

    text = on_one_line(run_command("why", "--item", "ROOM-1", *FRIDAY, "--quantity", "2").stdout)

    assert "Not free: 1 unit of ROOM-1 free throughout, 2 wanted." in text
    assert "1 unit from 2030-05-03T09:00:00Z until 2030-05-03T11:30:00Z, buffers included; a hold, which" in text
    assert hold.expires_at is not None
    assert f"lapses at {hold.expires_at:%Y-%m-%dT%H:%M:%SZ}" in text


def test_the_same_as_json(db: Db) -> None:
    a_time_hold(db, a_calendar(db, sku="ROOM-1"), hours(9, 11))

    run = run_command("why", "--item", "ROOM-1", *FRIDAY, "--json")

    refusal = json.loads(run.stdout)["refusal"]
    assert (refusal["kind"], refusal["available_quantity"]) == ("not_free", 0)
    assert refusal["conflicts"][0]["end"] == "2030-05-03T11:00:00Z"


def test_closed_sold_out_and_never_accepted_are_told_apart(db: Db) -> None:
    a_calendar(db, sku="ROOM-1", opening_hours={"mon": ["09:00-17:00"]})
    a_hold(db, an_item(db, 1, sku="MUG"))

    closed = on_one_line(run_command("why", "--item", "ROOM-1", *FRIDAY).stdout)
    sold_out = on_one_line(run_command("why", "--item", "MUG").stdout)
    never = on_one_line(run_command("why", "--item", "MUG", *FRIDAY).stdout)

    assert closed == ("ROOM-1 is closed for some of that time. It is open, by the time of UTC: 2030-05-03: not at all")
    assert sold_out == "Sold out: 0 units of MUG available, 1 wanted."
    assert never == "This is never accepted: start: MUG is stock, which is not reserved for a period."


def test_what_is_in_the_way_of_a_change_is_shown_and_nothing_is_changed(db: Db) -> None:
    room = a_calendar(db, sku="ROOM-1")
    one, _ = a_time_hold(db, room, hours(9, 11)), a_time_hold(db, room, hours(11, 12))

    in_the_way, _, instead = on_one_line(run_command("why", str(one.id), *FRIDAY).stdout).partition("Free instead:")
    free = run_command("why", str(one.id), "--start", "2030-05-03T09:30:00Z", "--end", "2030-05-03T10:30:00Z")
    too_many = json.loads(run_command("why", str(one.id), "--quantity", "2", "--json").stdout)

    assert "Not free: 0 units of ROOM-1 free throughout, 1 wanted." in in_the_way
    assert "1 unit from 2030-05-03T11:00:00Z until 2030-05-03T12:00:00Z" in in_the_way and "T09:00" not in in_the_way
    assert "1 unit of ROOM-1 from 2030-05-03T09:00:00Z until 2030-05-03T11:00:00Z" in instead
    assert free.stdout == "The reservation can be changed so now.\n"
    assert (too_many["refusal"]["kind"], too_many["quantity"]) == ("invalid", 2)
    with db() as session:
        assert reservations.get(session, one.id) == one


def test_what_overdue_holds_keep_can_be_reserved(db: Db) -> None:
    an_overdue_hold(db, an_item(db, 1, sku="MUG"))

    assert run_command("why", "--item", "MUG").stdout == "1 unit of MUG can be reserved now.\n"


def test_a_hold_that_has_expired_is_named_as_such(db: Db) -> None:
    hold = a_time_hold(db, a_calendar(db), hours(9, 11))
    let_lapse(db, hold.id)

    run = run_command("why", str(hold.id), *FRIDAY)

    assert run.stdout.startswith("The hold expired at ") and run.stdout.endswith("Make a new reservation.\n")


def test_a_reservation_of_a_status_that_allows_no_change_is_named_as_such(db: Db) -> None:
    cancelled = a_time_hold(db, a_calendar(db), hours(9, 11))
    with db.begin() as session:
        reservations.change(session, cancelled.id, Status.CANCELLED, routes=routes_of(db))

    run = run_command("why", str(cancelled.id), *FRIDAY)

    assert run.stdout.startswith("The reservation is CANCELLED")


def test_wrong_usage_is_refused(db: Db) -> None:
    nothing = run_command("why")
    half = run_command("why", "--item", "ROOM-1", *FRIDAY[:2])

    assert [run.returncode for run in (nothing, half)] == [2, 2]


def test_what_does_not_exist_is_named_with_where_to_look(db: Db) -> None:
    item = run_command("why", "--item", "ROOM\x1b[31m", *FRIDAY)
    reservation = run_command("why", NO_ID, "--quantity", "2")
    in_outbox = run_command("why", NO_ID)

    assert [run.returncode for run in (item, reservation, in_outbox)] == [1, 1, 1]
    assert item.stderr == "There is no item with the sku 'ROOM\\x1b[31m'. GET /items lists all items.\n"
    assert reservation.stderr == (
        f"There is no reservation with the id {NO_ID}. GET /reservations lists all reservations.\n"
    )


def test_a_sku_never_controls_the_terminal(db: Db) -> None:
    sku = "MUG\x1b[31m\n"
    an_item(db, 1, sku=sku)

    free, sold_out = run_command("why", "--item", sku), run_command("why", "--item", sku, "--quantity", "2")

    assert free.stdout == "1 unit of MUG [31m can be reserved now.\n"
    assert sold_out.stdout == "Sold out: 1 unit of MUG [31m available, 2 wanted.\n"


def test_a_reservation_that_somebody_is_changing_is_busy(db: Db) -> None:
    rooms = a_calendar(db, capacity=2, sku="ROOMS")
    hold, lapsed = a_time_hold(db, rooms, hours(8, 9)), a_time_hold(db, rooms, hours(10, 12), 2)
    let_lapse(db, lapsed.id)

    with db.begin() as session:
        reservations.lock(session, [lapsed.id])
        run = run_command("why", str(hold.id), *FRIDAY)

    assert (run.returncode, run.stderr) == (
        1,
        "Somebody else is changing the same rows just now. Nothing was explained. Wait a little and run it again.\n",
    )
