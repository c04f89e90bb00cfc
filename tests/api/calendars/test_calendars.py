"""Calendars over HTTP: they are created, reserved, blocked and rescheduled, and refusals say what is in the way."""

from datetime import timedelta
from typing import Any

import httpx
import pytest

from tests.support.builders import FRIDAY, Db, hours


def a_calendar(api: httpx.Client, **fields: object) -> dict[str, Any]:
    asked = {"sku": "ROOM-1", "name": "Room 1", "kind": "calendar", "capacity": 1, "time_zone": "Europe/Berlin"}
    answer = api.post("/items", json=asked | fields)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def times(start: float, end: float) -> dict[str, str]:
    return {name: (FRIDAY + timedelta(hours=at)).isoformat() for name, at in (("start", start), ("end", end))}


def reserve(api: httpx.Client, start: float, end: float, sku: str = "ROOM-1", **fields: object) -> httpx.Response:
    return api.post("/reservations", json={"sku": sku, "quantity": 1, **times(start, end)} | fields)


def test_a_calendar_is_created_with_its_settings_and_shows_them(api: httpx.Client) -> None:
    given = {
        "capacity": 10,
        "buffer_before_seconds": 900,
        "buffer_after_seconds": 1800,
        "opening_hours": {"mon": ["09:00-12:00"], "exceptions": {"2030-12-24": []}},
        "venue": "hotel",
    }

    made = a_calendar(api, **given)

    assert {name: made[name] for name in given if name != "opening_hours"} == {
        name: value for name, value in given.items() if name != "opening_hours"
    }
    assert made["opening_hours"]["mon"] == ["09:00-12:00"]
    assert (made["kind"], made["available_quantity"], made["stock_quantity"]) == ("calendar", None, None)
    assert api.get("/items/ROOM-1").json() == made


def test_a_calendar_is_changed(api: httpx.Client) -> None:
    a_calendar(api, opening_hours={"mon": ["09:00-12:00"]})

    changed = api.patch("/items/ROOM-1", json={"capacity": 3, "opening_hours": None, "name": "Rooms"})

    assert changed.status_code == 200
    assert (changed.json()["capacity"], changed.json()["opening_hours"], changed.json()["name"]) == (3, None, "Rooms")


@pytest.mark.parametrize(
    ("fields", "at_fault"),
    [
        ({"capacity": None}, "capacity"),
        ({"capacity": 0}, "capacity"),
        ({"time_zone": None}, "time_zone"),
        ({"time_zone": "Europe/Atlantis"}, "time_zone"),
        ({"time_zone": "../etc/passwd"}, "time_zone"),
        ({"available_quantity": 5}, "available_quantity"),
        ({"kind": "stock"}, "capacity"),
        ({"kind": "concert"}, "kind"),
        ({"buffer_after_seconds": 86_401}, "buffer_after_seconds"),
        ({"opening_hours": {"monday": []}}, "opening_hours"),
        ({"opening_hours": {"mon": ["9-12"]}}, "opening_hours.mon"),
        ({"opening_hours": {"mon": ["09:00-12:00", "11:00-13:00"]}}, "opening_hours.mon"),
        ({"venue": "x" * 65}, "venue"),
    ],
)
def test_bad_settings_are_refused(api: httpx.Client, fields: dict[str, object], at_fault: str) -> None:
    asked = {"sku": "ROOM-1", "name": "Room 1", "kind": "calendar", "capacity": 1, "time_zone": "Europe/Berlin"}

    answer = api.post("/items", json=asked | fields)

    assert (answer.status_code, answer.json()["field"].split("[")[0]) == (400, at_fault), answer.text
    assert api.get("/items").json()["items"] == []


@pytest.mark.parametrize(
    ("fields", "at_fault"),
    [
        (times(12, 10), "end"),
        (times(10, 10), "end"),
        ({"start": "2030-05-03T10:00:00", "end": "2030-05-03T12:00:00Z"}, "start"),
        ({"start": "2030-05-03T10:00:00Z", "end": "Friday"}, "end"),
        ({"start": "2030-05-03T10:00:00Z", "end": None}, "end"),
        ({"start": None, "end": "2030-05-03T10:00:00Z"}, "start"),
        ({"start": None, "end": None}, "start"),
        ({"start": "2030-05-03T10:00:00Z", "end": "2032-05-06T10:00:00Z"}, "end"),
        ({"start": "1969-12-31T10:00:00Z", "end": "1970-01-01T10:00:00Z"}, "start"),
        ({"start": "2199-12-31T10:00:00Z", "end": "2200-01-01T10:00:00Z"}, "end"),
        ({"start": "0001-01-01T00:00:00+14:00", "end": "2030-01-01T10:00:00Z"}, "start"),
        ({"quantity": 2}, "quantity"),
        (
            {"lines": [{"sku": "ROOM-1", "quantity": 1}, {"sku": "MUG", "quantity": 1}], "sku": None, "quantity": None},
            "start",
        ),
        ({"sku": "MUG"}, "start"),
    ],
)
def test_bad_periods_are_refused_and_leave_nothing_behind(
    api: httpx.Client, fields: dict[str, object], at_fault: str
) -> None:
    a_calendar(api)
    api.post("/items", json={"sku": "MUG", "name": "Mug", "available_quantity": 5})
    asked = {"sku": "ROOM-1", "quantity": 1, **times(10, 12)} | fields

    answer = api.post("/reservations", json={name: value for name, value in asked.items() if value is not None})

    assert (answer.status_code, answer.json()["field"]) == (400, at_fault), answer.text
    assert api.get("/reservations").json()["reservations"] == []


def test_a_reservation_shows_its_period_in_utc(api: httpx.Client) -> None:
    a_calendar(api)

    asked = {"sku": "ROOM-1", "quantity": 1, "start": "2030-05-03T12:00:00+02:00", "end": "2030-05-03T14:00:00+02:00"}
    made = api.post("/reservations", json=asked)

    assert (made.json()["start"], made.json()["end"]) == ("2030-05-03T10:00:00Z", "2030-05-03T12:00:00Z")
    assert api.get(made.headers["Location"]).json() == made.json()


def test_a_refusal_names_what_is_in_the_way_and_when_a_hold_lapses(api: httpx.Client) -> None:
    a_calendar(api, capacity=2, buffer_after_seconds=3600)
    hold = reserve(api, 10, 12, ttl_seconds=600, guest={"id": "guest-secret"}, note="secret").json()
    confirmed = reserve(api, 12, 14).json()
    api.post(f"/reservations/{confirmed['id']}/confirm")

    refused = reserve(api, 11, 13, quantity=2)

    assert refused.status_code == 409
    problem = refused.json()
    assert problem["type"] == "/problems/not-free"
    assert (problem["asked"], problem["available_quantity"]) == (2, 0)
    expected = [(times(10, 13), hold["expires_at"]), (times(12, 15), None)]
    assert problem["conflicts"] == [
        {name: at.replace("+00:00", "Z") for name, at in period.items()} | {"quantity": 1, "lapses_at": lapses_at}
        for period, lapses_at in expected
    ]
    assert "secret" not in refused.text


def test_outside_the_opening_hours_the_hours_are_in_the_problem(api: httpx.Client) -> None:
    a_calendar(api, opening_hours={"fri": ["09:00-17:00"]})

    refused = reserve(api, 16, 18)

    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/outside-opening-hours")
    assert refused.json()["opening_hours"] == {"2030-05-03": ["09:00-17:00"]}
    assert refused.json()["time_zone"] == "Europe/Berlin"


def test_a_reservation_is_rescheduled_and_its_etag_guards_that(api: httpx.Client) -> None:
    a_calendar(api)
    made = reserve(api, 10, 12)
    path, in_the_way = made.headers["Location"], reserve(api, 14, 16).json()

    stale = api.put(path, json=times(11, 13), headers={"If-Match": '"7"'})
    stale_version = api.put(path, json=times(11, 13) | {"expected_version": 7})
    refused = api.put(path, json=times(13, 15))
    moved = api.put(path, json=times(11, 13), headers={"If-Match": made.headers["ETag"]})

    assert (stale.status_code, stale_version.status_code, refused.status_code) == (412, 409, 409)
    assert refused.json()["conflicts"][0]["start"] == in_the_way["start"]
    assert (moved.status_code, moved.json()["version"]) == (200, 2)
    assert moved.json()["start"] == hours(11, 13).start.isoformat().replace("+00:00", "Z")
    assert reserve(api, 10, 11).status_code == 201
    history = api.get(path).json()
    assert history == moved.json()


def test_units_of_stock_can_be_given_back_in_part(api: httpx.Client) -> None:
    api.post("/items", json={"sku": "MUG", "name": "Mug", "available_quantity": 5})
    made = api.post("/reservations", json={"sku": "MUG", "quantity": 5})

    smaller = api.put(made.headers["Location"], json={"quantity": 2})
    larger = api.put(made.headers["Location"], json={"quantity": 6})
    with_time = api.put(made.headers["Location"], json=times(10, 12))

    assert (smaller.status_code, larger.status_code, with_time.status_code) == (200, 409, 400)
    assert api.get("/items/MUG").json()["available_quantity"] == 3


@pytest.mark.parametrize("body", [{}, {"start": "2030-05-03T10:00:00Z"}, {"quantity": 0}, {"status": "CONFIRMED"}])
def test_a_bad_reschedule_is_refused(api: httpx.Client, body: dict[str, object]) -> None:
    a_calendar(api)
    made = reserve(api, 10, 12)

    answer = api.put(made.headers["Location"], json=body)

    assert answer.status_code == 400, answer.text
    assert api.get(made.headers["Location"]).json() == made.json()


def test_rescheduling_with_a_key_happens_once(api: httpx.Client) -> None:
    a_calendar(api)
    path = reserve(api, 10, 12).headers["Location"]

    first, second = (api.put(path, json=times(11, 13), headers={"Idempotency-Key": "k-1"}) for _ in range(2))
    other = api.put(path, json=times(12, 13), headers={"Idempotency-Key": "k-1"})

    assert (first.status_code, second.status_code, other.status_code) == (200, 200, 409)
    assert first.json() == second.json()
    assert second.headers["Idempotency-Replayed"] == "true"


def test_a_block_keeps_everybody_out_until_it_is_cancelled(api: httpx.Client) -> None:
    room = a_calendar(api, capacity=3)

    block = api.post(f"/items/by-id/{room['id']}/blocks", json=times(10, 12) | {"note": "Carpet"})
    refused = reserve(api, 11, 13)
    api.post(f"{block.headers['Location']}/cancel")

    assert (block.status_code, block.json()["status"], block.json()["quantity"]) == (201, "BLOCKED", 3)
    assert (block.json()["expires_at"], block.json()["note"]) == (None, "Carpet")
    assert refused.status_code == 409
    assert reserve(api, 11, 13).status_code == 201


def test_a_block_over_a_reservation_or_of_stock_is_refused(api: httpx.Client) -> None:
    room = a_calendar(api)
    mug = api.post("/items", json={"sku": "MUG", "name": "Mug", "available_quantity": 5}).json()
    reserve(api, 10, 12)

    over = api.post(f"/items/by-id/{room['id']}/blocks", json=times(11, 13))
    of_stock = api.post(f"/items/by-id/{mug['id']}/blocks", json=times(11, 13))
    of_nothing = api.post("/items/by-id/999/blocks", json=times(11, 13))

    assert (over.status_code, of_stock.status_code, of_nothing.status_code) == (409, 400, 404)


def test_the_same_key_reserves_time_once(api: httpx.Client) -> None:
    a_calendar(api)

    first, second = (
        api.post(
            "/reservations", json={"sku": "ROOM-1", "quantity": 1, **times(10, 12)}, headers={"Idempotency-Key": "k"}
        )
        for _ in range(2)
    )

    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()


def test_two_rooms_and_a_parking_lot_are_one_reservation(api: httpx.Client, db: Db) -> None:
    for sku, capacity in (("ROOM-1", 5), ("LOT", 1)):
        a_calendar(api, sku=sku, capacity=capacity)
    lines = [{"sku": "ROOM-1", "quantity": 2}, {"sku": "LOT", "quantity": 1}]

    made = api.post("/reservations", json={"lines": lines, **times(10, 12)})
    again = api.post("/reservations", json={"lines": lines, **times(11, 12)})

    assert (made.status_code, again.status_code) == (201, 409)
    assert [(line["sku"], line["quantity"]) for line in made.json()["lines"]] == [("ROOM-1", 2), ("LOT", 1)]
    assert again.json()["sku"] == "LOT"
    assert reserve(api, 11, 12, quantity=3).status_code == 201


def test_a_change_of_stock_that_only_calendars_have_is_refused_by_its_name(api: httpx.Client) -> None:
    api.post("/items", json={"sku": "MUG", "name": "Mug", "available_quantity": 5})

    refused = api.patch("/items/MUG", json={"adjust_quantity_by": 1, "capacity": 2})

    assert (refused.status_code, refused.json()["field"]) == (400, "capacity")


def test_a_capacity_below_what_is_in_use_is_refused(api: httpx.Client) -> None:
    a_calendar(api, capacity=3)
    reserve(api, 10, 12, quantity=2)

    refused = api.patch("/items/ROOM-1", json={"capacity": 1})

    assert (refused.status_code, refused.json()["in_use"]) == (409, 2)
    assert api.patch("/items/ROOM-1", json={"capacity": 2}).status_code == 200


@pytest.mark.parametrize("body", [{"adjust_quantity_by": 5}])
def test_a_calendar_has_no_stock_to_change(api: httpx.Client, body: dict[str, object]) -> None:
    a_calendar(api)

    assert api.patch("/items/ROOM-1", json=body).status_code == 400


def test_stock_has_no_capacity_to_change(api: httpx.Client) -> None:
    api.post("/items", json={"sku": "MUG", "name": "Mug", "available_quantity": 5})

    assert api.patch("/items/MUG", json={"capacity": 5}).status_code == 400


def test_what_overlaps_a_window_is_listed_page_by_page_in_order_of_its_start(api: httpx.Client) -> None:
    a_calendar(api, capacity=10)
    made = [
        reserve(api, start, start + 2, guest={"id": guest}).json() for start, guest in ((12, "a"), (8, "a"), (10, "b"))
    ]
    window = {"ends_after": times(9, 13)["start"], "starts_before": times(9, 13)["end"]}

    first = api.get("/reservations", params={**window, "limit": 2}).json()
    second = api.get("/reservations", params={**window, "limit": 2, "cursor": first["next_cursor"]}).json()
    of_guest = api.get("/reservations", params={**window, "guest_id": "a"}).json()

    assert [one["id"] for one in first["reservations"]] == [made[1]["id"], made[2]["id"]]
    assert ([one["id"] for one in second["reservations"]], second["next_cursor"]) == ([made[0]["id"]], None)
    assert [one["id"] for one in of_guest["reservations"]] == [made[1]["id"], made[0]["id"]]


@pytest.mark.parametrize(
    ("parameters", "at_fault"),
    [
        ({"ends_after": "2030-05-03"}, "ends_after"),
        ({"starts_before": "2030-05-03T10:00:00"}, "starts_before"),
        ({"starts_before": "2030-05-03T10:00:00Z", "from": "2030-05-03T10:00:00Z"}, "from"),
        ({"starts_before": "2030-05-03T10:00:00Z", "cursor": "01943bb1-8a00-7e3c-9d54-3f1c0b6a7e21"}, "cursor"),
        ({"cursor": "20300503T100000.000000Z_01943bb1-8a00-7e3c-9d54-3f1c0b6a7e21"}, "cursor"),
    ],
)
def test_a_bad_window_is_refused(api: httpx.Client, parameters: dict[str, str], at_fault: str) -> None:
    answer = api.get("/reservations", params=parameters)

    assert (answer.status_code, answer.json()["field"]) == (400, at_fault)


def take(api: httpx.Client, alternative: dict[str, Any]) -> int:
    return api.post("/reservations", json=alternative).status_code


def test_an_alternative_that_is_taken_at_once_succeeds(api: httpx.Client) -> None:
    """Another time of this room, another room of the same hotel, and fewer units."""
    a_calendar(api, capacity=3, venue="hotel", buffer_after_seconds=1_800)
    a_calendar(api, sku="SUITE", capacity=2, venue="hotel")
    a_calendar(api, sku="ELSEWHERE", capacity=9, venue="another hotel")
    reserve(api, 10, 12, quantity=2)

    found = reserve(api, 11, 13, quantity=2).json()["alternatives"]

    assert [(one["sku"], one["quantity"]) for one in found] == [("ROOM-1", 2), ("SUITE", 2), ("ROOM-1", 1)]
    assert [one["start"] for one in found[1:]] == [times(11, 13)["start"].replace("+00:00", "Z")] * 2
    assert found[0]["start"] == times(12.5, 14.5)["start"].replace("+00:00", "Z")
    assert [take(api, one) for one in found] == [201] * 3


def test_a_refused_change_counts_what_the_reservation_has_as_free(api: httpx.Client) -> None:
    a_calendar(api, capacity=7)
    path = reserve(api, 11, 13, quantity=5).headers["Location"]
    reserve(api, 12, 13, quantity=2)

    refused = api.put(path, json={"quantity": 6}).json()

    assert (refused["available_quantity"], [one["quantity"] for one in refused["conflicts"]]) == (5, [2])
    assert len(refused["alternatives"]) == 3
    for one in refused["alternatives"]:
        assert api.put(path, json={name: one[name] for name in ("start", "end", "quantity")}).status_code == 200
        assert api.put(path, json=times(11, 13) | {"quantity": 5}).status_code == 200


def test_alternatives_are_within_the_opening_hours(api: httpx.Client) -> None:
    a_calendar(api, opening_hours={"fri": ["09:00-14:00"], "mon": ["09:00-14:00"]})
    reserve(api, 7, 11.5)

    found = reserve(api, 9, 11).json()["alternatives"]

    assert len(found) == 3
    assert take(api, found[0]) == 201


def test_a_request_for_several_calendars_gets_no_alternatives(api: httpx.Client) -> None:
    for sku in ("ROOM-1", "LOT"):
        a_calendar(api, sku=sku)
    reserve(api, 10, 12)

    refused = api.post(
        "/reservations", json={"lines": [{"sku": sku, "quantity": 1} for sku in ("ROOM-1", "LOT")], **times(11, 13)}
    )

    assert (refused.json()["alternatives"], len(refused.json()["conflicts"])) == ([], 1)


def test_a_change_of_several_calendars_gets_no_alternatives(api: httpx.Client) -> None:
    lines = [{"sku": a_calendar(api, sku=sku)["sku"], "quantity": 1} for sku in ("ROOM-1", "LOT")]
    path = api.post("/reservations", json={"lines": lines, **times(14, 16)}).headers["Location"]
    reserve(api, 10, 12)

    refused = api.put(path, json=times(11, 13))

    assert (refused.json()["alternatives"], len(refused.json()["conflicts"])) == ([], 1)
