"""Bookings over HTTP, by the lines of 1-booking-lifecycle.md."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import httpx
import pytest

from api.bookings.schemas import PAYMENT_STATUSES
from domain.bookings import State
from tests.api.bookings.conftest import BOOKINGS, EVENING, VENUE, book, made
from tests.support.builders import Db, let_lapse


def test_every_state_of_a_payment_has_a_name_in_the_contract() -> None:
    assert {*PAYMENT_STATUSES} == {None, *State}


def test_post_bookings_creates_a_booking_201(venue: httpx.Client) -> None:
    answer = book(venue, venue_type="restaurant", metadata={"campaign": "spring"}, source="website")

    booking = answer.json()
    assert answer.status_code == 201
    assert answer.headers["Location"] == f"{BOOKINGS}/{booking['id']}"
    assert answer.headers["ETag"] == '"1"'
    asked = {name: booking[name] for name in EVENING if name != "booking_time"}
    assert asked == {name: value for name, value in EVENING.items() if name != "booking_time"}
    assert (booking["booking_time"], booking["end_time"]) == ("19:30:00", "21:30:00")
    assert (booking["start"], booking["end"]) == ("2030-05-03T17:30:00Z", "2030-05-03T19:30:00Z")
    assert (booking["status"], booking["version"]) == ("PENDING", 1)
    assert (booking["venue_type"], booking["venue_name"], booking["source"]) == (
        "restaurant",
        "Ristorante Vela",
        "website",
    )
    assert (booking["total_price"], booking["currency"], booking["price_source"]) == ("120.00", "EUR", "default")
    assert booking["price_guaranteed_until"] == booking["expires_at"]
    assert (booking["inventory_item_id"], booking["metadata"]) == ("VELA-TABLES", {"campaign": "spring"})


def test_a_booking_reference_is_readable_and_has_the_date_at_the_venue(venue: httpx.Client) -> None:
    references = {
        made(venue, booking_date="2030-05-04", booking_time="00:30", party_size=1)["booking_reference"]
        for _ in range(10)
    }

    assert len(references) == 10
    # In UTC, it is still the day before.
    assert all(reference.startswith("BR-20300504-") and len(reference) == 18 for reference in references)


def test_get_bookings_id_200_and_404(venue: httpx.Client) -> None:
    booking = made(venue)

    found = venue.get(f"{BOOKINGS}/{booking['id']}")

    assert (found.status_code, found.headers["ETag"]) == (200, '"1"')
    shown = {name: found.json()[name] for name in booking}
    assert shown == booking
    assert venue.get(f"{BOOKINGS}/{uuid4()}").status_code == 404
    assert venue.get(f"{BOOKINGS}/nonsense").status_code == 400


def test_get_bookings_reference_200_and_404(venue: httpx.Client) -> None:
    booking = made(venue)

    found = venue.get(f"{BOOKINGS}/reference/{booking['booking_reference'].lower()}")

    assert (found.status_code, found.json()["id"]) == (200, booking["id"])
    unknown = venue.get(f"{BOOKINGS}/reference/BR-20300503-ZZZZZZ")
    assert (unknown.status_code, unknown.json()["type"]) == (404, "/problems/unknown-reference")


def test_a_plain_reservation_is_no_booking(venue: httpx.Client) -> None:
    period = {"start": "2030-05-03T17:30:00Z", "end": "2030-05-03T19:30:00Z"}
    plain = venue.post("/reservations", json={"sku": "VELA-TABLES", "quantity": 1, **period}).json()

    assert venue.get(f"{BOOKINGS}/{plain['id']}").status_code == 404
    assert venue.get(f"{BOOKINGS}/venue/{VENUE}").json()["bookings"] == []


def test_a_booking_is_a_reservation(venue: httpx.Client) -> None:
    booking = made(venue)

    seen = venue.get(f"/reservations/{booking['id']}").json()

    assert (seen["quantity"], seen["start"], seen["status"]) == (4, booking["start"], "PENDING")


#: Further fields, and the field that the refusal names.
BAD_INPUT: list[tuple[dict[str, Any], str]] = [
    ({"party_size": 0}, "party_size"),
    ({"party_size": 21}, "party_size"),
    ({"party_size": "4"}, "party_size"),
    ({"booking_date": "2020-05-03"}, "booking_date"),
    ({"booking_date": "2030-02-30"}, "booking_date"),
    ({"booking_date": "9999-12-31"}, "booking_date"),
    ({"booking_date": "0001-01-01"}, "booking_date"),
    ({"booking_time": "25:00"}, "booking_time"),
    ({"booking_time": "10:00\n"}, "booking_time"),
    ({"idempotency_key": "a\n"}, "idempotency_key"),
    ({"booking_date": "2199-12-31", "duration_minutes": 1_000_000}, "duration_minutes"),
    ({"booking_time": "half past seven"}, "booking_time"),
    ({"duration_minutes": 0}, "duration_minutes"),
    ({"duration_minutes": 10_000_000}, "duration_minutes"),
    ({"guest_name": "Zoë", "guest_email": "not an address"}, "guest_email"),
    ({"guest_name": "Zoë", "guest_phone": "--"}, "guest_phone"),
    ({"guest_email": "zoe@example.com"}, "guest_name"),
    ({"metadata": {"a": "x" * 17_000}}, "metadata"),
    ({"metadata": json.loads('{"a":' * 9 + "1" + "}" * 9)}, "metadata"),
    ({"inventory_item_id": ""}, "inventory_item_id"),
    ({"idempotency_key": "ü"}, "idempotency_key"),
    ({"unknown": 1}, "unknown"),
]


@pytest.mark.parametrize(("fields", "at_fault"), BAD_INPUT)
def test_bad_input_is_400_names_the_field_and_leaves_nothing(
    venue: httpx.Client, fields: dict[str, Any], at_fault: str
) -> None:
    answer = book(venue, **fields)

    assert (answer.status_code, answer.json().get("field")) == (400, at_fault), answer.text
    assert venue.get(f"{BOOKINGS}/venue/{VENUE}").json()["bookings"] == []


def test_an_unknown_venue_is_404(venue: httpx.Client) -> None:
    answer = book(venue, venue_id="nowhere")

    assert (answer.status_code, answer.json()["type"], answer.json()["field"]) == (
        404,
        "/problems/unknown-venue",
        "venue_id",
    )


def test_a_venue_with_two_calendars_needs_the_name_of_one(api: httpx.Client) -> None:
    for sku in ("TERRACE", "CELLAR"):
        place = {"sku": sku, "name": sku.title(), "kind": "calendar", "capacity": 8, "time_zone": "Europe/Rome"}
        api.post("/items", json=place | {"venue": "osteria"})

    assert book(api, venue_id="osteria").json()["field"] == "inventory_item_id"
    assert made(api, venue_id="osteria", inventory_item_id="TERRACE")["venue_name"] == "Terrace"
    assert book(api, venue_id="osteria", inventory_item_id="NOT-HERE").status_code == 404


def test_a_time_that_the_clock_skips_is_moved_forward_and_the_answer_says_so(venue: httpx.Client) -> None:
    booking = made(venue, booking_date="2030-03-31", booking_time="02:30", duration_minutes=60)

    assert (booking["booking_time"], booking["booking_time_moved_from"]) == ("03:00:00", "02:30:00")
    assert booking["start"] == "2030-03-31T01:00:00Z"


def test_a_time_that_the_clock_shows_twice_is_the_first(venue: httpx.Client) -> None:
    booking = made(venue, booking_date="2030-10-27", booking_time="02:30", duration_minutes=60)

    assert (booking["start"], booking["booking_time_moved_from"]) == ("2030-10-27T00:30:00Z", None)


def test_a_booking_may_end_past_midnight(venue: httpx.Client) -> None:
    booking = made(venue, booking_time="23:00", duration_minutes=180)

    assert (booking["booking_date"], booking["end_time"]) == ("2030-05-03", "02:00:00")
    assert booking["end"] == "2030-05-04T00:00:00Z"


def test_what_is_not_free_is_409_with_alternatives(venue: httpx.Client) -> None:
    made(venue, party_size=18)

    answer = book(venue, party_size=3)

    assert (answer.status_code, answer.json()["available_quantity"]) == (409, 2)
    assert answer.json()["alternatives"]


def test_a_duplicate_operation_with_the_same_key_returns_the_original_result(venue: httpx.Client) -> None:
    first = book(venue, idempotency_key="order-7")
    again = book(venue, idempotency_key="order-7")
    in_header = venue.post(
        BOOKINGS, json=EVENING | {"idempotency_key": "order-7"}, headers={"Idempotency-Key": "order-7"}
    )

    assert first.json() == again.json() == in_header.json()
    assert again.headers["Idempotency-Replayed"] == "true"
    assert book(venue, idempotency_key="order-7", party_size=2).status_code == 409
    assert book(venue, idempotency_key="other").json()["id"] != first.json()["id"]


def test_two_different_keys_of_one_request_are_400(venue: httpx.Client) -> None:
    answer = venue.post(BOOKINGS, json=EVENING | {"idempotency_key": "a"}, headers={"Idempotency-Key": "b"})

    assert (answer.status_code, answer.json()["field"]) == (400, "idempotency_key")


def test_keys_are_kept_by_operation(venue: httpx.Client) -> None:
    booking = made(venue, idempotency_key="same")

    cancelled = venue.post(f"{BOOKINGS}/{booking['id']}/cancel", json={"idempotency_key": "same"})

    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "CANCELLED")


def test_post_cancel_200_and_400_and_404(venue: httpx.Client) -> None:
    booking = made(venue)
    at = f"{BOOKINGS}/{booking['id']}"

    cancelled = venue.post(f"{at}/cancel", json={"reason": "Ill", "expected_version": 1})

    found = cancelled.json()
    assert (cancelled.status_code, found["status"], found["version"]) == (200, "CANCELLED", 2)
    assert (found["cancellation_reason"], found["cancelled_by"]) == ("Ill", "anonymous")
    assert found["cancelled_at"] is not None
    assert venue.post(f"{at}/cancel").json() == found, "asked again, it is so already"
    assert venue.post(f"{BOOKINGS}/{uuid4()}/cancel").status_code == 404
    done = made(venue)
    for status in ("CONFIRMED", "COMPLETED"):
        assert venue.post(f"{BOOKINGS}/{done['id']}/status", json={"status": status}).status_code == 200
    refused = venue.post(f"{BOOKINGS}/{done['id']}/cancel")
    assert (refused.status_code, refused.json()["type"]) == (400, "/problems/illegal-transition")


#: How a booking gets its status, and the statuses that it may be given then. Source: "Valid Transitions"; REJECTED and
#: NO_SHOW are those of the other documents.
TRANSITIONS = {
    (): {"CONFIRMED", "CANCELLED", "REJECTED"},
    ("CONFIRMED",): {"CHECKED_IN", "CANCELLED", "COMPLETED", "NO_SHOW"},
    ("CONFIRMED", "CHECKED_IN"): {"COMPLETED", "CANCELLED"},
    ("CONFIRMED", "COMPLETED"): set(),
    ("CANCELLED",): set(),
    ("REJECTED",): set(),
    ("CONFIRMED", "NO_SHOW"): set(),
}


@pytest.mark.parametrize("way", TRANSITIONS, ids=lambda way: "-".join(way) or "PENDING")
def test_post_status_allows_the_valid_transitions_and_400_lists_them(venue: httpx.Client, way: tuple[str, ...]) -> None:
    def at_the_end_of_it() -> str:
        booking = made(venue, party_size=1)
        for status in way:
            assert venue.post(f"{BOOKINGS}/{booking['id']}/status", json={"status": status}).status_code == 200
        return f"{BOOKINGS}/{booking['id']}/status"

    current = way[-1] if way else "PENDING"
    for status in ("CONFIRMED", "CHECKED_IN", "COMPLETED", "CANCELLED", "REJECTED", "NO_SHOW"):
        answer = venue.post(at_the_end_of_it(), json={"status": status})
        if status in TRANSITIONS[way] or status == current:
            assert (answer.status_code, answer.json()["status"]) == (200, status)
        else:
            allowed = ", ".join(sorted(TRANSITIONS[way])) or "nothing else"
            assert (answer.status_code, answer.json()["allowed"]) == (400, allowed), (current, status)
            assert answer.json()["current_status"] == current


@pytest.mark.parametrize("status", ["PENDING", "EXPIRED", "BLOCKED", "SOLD", 3, None])
def test_a_status_that_nobody_can_ask_for_is_400(venue: httpx.Client, status: object) -> None:
    booking = made(venue)

    answer = venue.post(f"{BOOKINGS}/{booking['id']}/status", json={"status": status})

    assert answer.status_code == 400
    assert venue.get(f"{BOOKINGS}/{booking['id']}").json()["status"] == "PENDING"


def test_a_hold_that_has_lapsed_is_expired_and_can_not_be_confirmed(venue: httpx.Client, db: Db) -> None:
    booking = made(venue)
    let_lapse(db, booking["id"])

    answer = venue.post(f"{BOOKINGS}/{booking['id']}/status", json={"status": "CONFIRMED"})

    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/hold-expired")
    assert venue.get(f"{BOOKINGS}/{booking['id']}").json()["status"] == "EXPIRED"


@pytest.mark.parametrize("operation", ["cancel", "status"])
def test_a_version_that_does_not_match_is_409_and_an_etag_412(venue: httpx.Client, operation: str) -> None:
    booking = made(venue)
    body = {"status": "CONFIRMED"} if operation == "status" else {}
    at = f"{BOOKINGS}/{booking['id']}/{operation}"

    assert venue.post(at, json=body | {"expected_version": 2}).status_code == 409
    assert venue.post(at, json=body | {"expected_version": "1"}).status_code == 400
    assert venue.post(at, json=body, headers={"If-Match": '"2"'}).status_code == 412
    assert venue.post(at, json=body | {"expected_version": 1}, headers={"If-Match": '"1"'}).status_code == 200


def test_status_history_is_recorded_for_audit_trail(venue: httpx.Client) -> None:
    booking = made(venue)
    for status in ("CONFIRMED", "CHECKED_IN"):
        venue.post(f"{BOOKINGS}/{booking['id']}/status", json={"status": status, "reason": f"now {status}"})

    found = venue.get(f"{BOOKINGS}/{booking['id']}/history").json()

    steps = [(one["from_status"], one["to_status"], one["changed_by"], one["reason"]) for one in found["history"]]
    assert steps == [
        (None, "PENDING", "anonymous", None),
        ("PENDING", "CONFIRMED", "anonymous", "now CONFIRMED"),
        ("CONFIRMED", "CHECKED_IN", "anonymous", "now CHECKED_IN"),
    ]
    assert venue.get(f"{BOOKINGS}/{uuid4()}/history").status_code == 404


def test_get_bookings_guest_lists_them_newest_first_in_pages(venue: httpx.Client) -> None:
    ids = [made(venue, party_size=1)["id"] for _ in range(3)]
    made(venue, guest_id="somebody-else")

    page = venue.get(f"{BOOKINGS}/guest/guest-42", params={"limit": 2}).json()
    rest = venue.get(f"{BOOKINGS}/guest/guest-42", params={"limit": 2, "cursor": page["next_cursor"]}).json()

    assert [one["id"] for one in (*page["bookings"], *rest["bookings"])] == ids[::-1]
    assert venue.get(f"{BOOKINGS}/guest/nobody").json() == {"bookings": [], "next_cursor": None}
    assert venue.get(f"{BOOKINGS}/guest/guest-42", params={"status": "CONFIRMED"}).json()["bookings"] == []


def test_get_bookings_venue_lists_them_and_those_of_a_day_in_order(venue: httpx.Client) -> None:
    late = made(venue, booking_time="21:00")["id"]
    early = made(venue, booking_time="18:00")["id"]
    other_day = made(venue, booking_date="2030-05-04")["id"]

    all_of_it = venue.get(f"{BOOKINGS}/venue/{VENUE}").json()["bookings"]
    of_a_day = venue.get(f"{BOOKINGS}/venue/{VENUE}", params={"booking_date": "2030-05-03"}).json()["bookings"]

    assert [one["id"] for one in all_of_it] == [other_day, early, late]
    assert [one["id"] for one in of_a_day] == [early, late]


def test_post_availability_check_200(venue: httpx.Client) -> None:
    asked = {name: EVENING[name] for name in EVENING if name != "guest_id"}
    made(venue, party_size=18)

    free = venue.post(f"{BOOKINGS}/availability/check", json=asked | {"party_size": 2}).json()
    full = venue.post(f"{BOOKINGS}/availability/check", json=asked | {"party_size": 3}).json()

    assert (free["available"], free["available_capacity"]) == (True, 2)
    assert (free["total_price"], free["currency"], free["price_source"]) == ("60.00", "EUR", "default")
    assert (full["available"], full["available_capacity"]) == (False, 2)
    assert full["alternatives"][0]["inventory_item_id"] == "VELA-TABLES"
    past = venue.post(f"{BOOKINGS}/availability/check", json=asked | {"booking_date": "2020-05-03"}).json()
    assert (past["available"], past["available_capacity"]) == (False, 0)


def test_the_guest_is_in_no_answer_but_that_of_get(venue: httpx.Client) -> None:
    person = {
        "guest_name": "Zoë Ångström",
        "guest_email": "zoe@example.com",
        "guest_phone": "+351 21 000",
        "special_requests": "By the window",
    }
    answer = book(venue, **person, internal_notes="Regular")
    at = f"{BOOKINGS}/{answer.json()['id']}"

    got = venue.get(at)

    assert {name: got.json()[name] for name in person} == person
    assert (got.json()["internal_notes"], got.headers["Cache-Control"]) == ("Regular", "no-store")
    others = (answer, venue.post(f"{at}/cancel"), venue.get(f"{BOOKINGS}/guest/guest-42"), venue.get(f"{at}/history"))
    assert not [name for name in person.values() for one in others if name in one.text]
    entries = venue.get("/audit").json()["entries"]
    assert ("guest.read", f"reservation:{answer.json()['id']}") in [(one["action"], one["subject"]) for one in entries]


def test_who_prefers_to_wait_is_answered_when_the_booking_has_left_pending(venue: httpx.Client) -> None:
    """Nobody takes the steps here, so the preference ends by its time; the one that is confirmed is in another test."""
    answer = venue.post(BOOKINGS, json=EVENING, headers={"Prefer": "respond-async, wait=1"})

    assert (answer.status_code, answer.json()["status"]) == (201, "PENDING")
    assert answer.headers["Preference-Applied"] == "wait=1"
    assert "Preference-Applied" not in venue.post(BOOKINGS, json=EVENING, headers={"Prefer": "wait=soon"}).headers


def test_one_who_stops_waiting_for_a_booking_leaves_the_others_waiting_for_it(venue: httpx.Client) -> None:
    def wait(seconds: int) -> httpx.Response:
        headers = {"Idempotency-Key": "twice", "Prefer": f"wait={seconds}"}
        return venue.post(BOOKINGS, json=EVENING, headers=headers, timeout=seconds + 15)

    with ThreadPoolExecutor() as threads:
        first, second = threads.submit(wait, 1), threads.submit(wait, 30)

        booking = first.result().json()
        venue.post(f"{BOOKINGS}/{booking['id']}/cancel")

        # Long before it would have stopped waiting by itself.
        assert second.result(timeout=15).json()["status"] == "CANCELLED"


def test_a_calendar_that_gets_another_time_zone_is_booked_by_it_at_once(venue: httpx.Client) -> None:
    made(venue, party_size=1)
    venue.patch("/items/VELA-TABLES", json={"time_zone": "America/New_York"})

    assert made(venue, party_size=1)["start"] == "2030-05-03T23:30:00Z"


def test_a_list_price_is_kept_shown_and_taken_away(venue: httpx.Client) -> None:
    price = {"amount": "90.00", "currency": "EUR", "per": "reservation"}

    assert venue.patch("/items/VELA-TABLES", json={"price": price}).json()["price"] == price
    assert made(venue, party_size=3)["total_price"] == "90.00"
    assert venue.patch("/items/VELA-TABLES", json={"price": None}).json()["price"] is None
    booking = made(venue, party_size=3)
    assert (booking["total_price"], booking["currency"], booking["price_source"]) == (None, None, None)


@pytest.mark.parametrize(
    "price",
    [
        {"amount": "1.005", "currency": "EUR"},
        {"amount": "1.5", "currency": "JPY"},
        {"amount": "-1", "currency": "EUR"},
        {"amount": "1e9", "currency": "EUR"},
        {"amount": "10", "currency": "XXZ"},
        {"amount": "10", "currency": "eur"},
        {"amount": 10, "currency": "EUR"},
        {"amount": "10"},
        {"amount": "99999999999999999999", "currency": "EUR"},
        {"amount": "10", "currency": "EUR", "per": "week"},
    ],
)
def test_a_list_price_that_is_no_amount_is_400(venue: httpx.Client, price: dict[str, Any]) -> None:
    assert venue.patch("/items/VELA-TABLES", json={"price": price}).status_code == 400


def test_a_booking_that_would_cost_more_than_there_is_is_400_and_disturbs_no_other(venue: httpx.Client) -> None:
    booking = made(venue, party_size=1)
    dear = {"amount": "9999999999999.00", "currency": "EUR"}
    assert venue.patch("/items/VELA-TABLES", json={"price": dear}).status_code == 200
    asked = {name: EVENING[name] for name in EVENING if name != "guest_id"}

    answers = [
        book(venue, party_size=2),
        venue.put(f"{BOOKINGS}/{booking['id']}", json={"expected_version": 1, "party_size": 2}),
        venue.post(f"{BOOKINGS}/availability/check", json=asked),
    ]

    assert [(one.status_code, one.json().get("field")) for one in answers] == [(400, "party_size")] * 3
    assert made(venue, party_size=1)["total_price"] == dear["amount"]


def test_put_bookings_200_and_the_version_goes_up(venue: httpx.Client) -> None:
    booking = made(venue)
    at = f"{BOOKINGS}/{booking['id']}"

    answer = venue.put(at, json={"expected_version": 1, "party_size": 2, "booking_time": "20:00"})

    changed = answer.json()
    assert (answer.status_code, answer.headers["ETag"], changed["version"]) == (200, '"2"', 2)
    assert (changed["party_size"], changed["booking_time"], changed["end_time"]) == (2, "20:00:00", "22:00:00")
    assert (changed["booking_date"], changed["duration_minutes"]) == ("2030-05-03", 120)
    assert changed["total_price"] == "60.00", "the price is asked anew"
    shown = venue.get(at).json()
    assert {name: shown[name] for name in changed} == changed


def test_put_bookings_changes_the_guest_and_the_notes(venue: httpx.Client) -> None:
    booking = made(venue, guest_name="Zoë", guest_phone="+351 21 000")
    at = f"{BOOKINGS}/{booking['id']}"

    answer = venue.put(
        at, json={"expected_version": 1, "guest_name": "Zoë Å", "guest_email": "z@x.example", "internal_notes": "VIP"}
    )

    assert (answer.status_code, answer.json()["version"]) == (200, 2)
    assert "Zoë" not in answer.text and "VIP" not in answer.text
    shown = venue.get(at).json()
    assert (shown["guest_name"], shown["guest_email"], shown["guest_phone"]) == ("Zoë Å", "z@x.example", None)
    assert (shown["internal_notes"], shown["party_size"]) == ("VIP", 4)
    assert venue.put(at, json={"expected_version": 2, "internal_notes": None}).json()["version"] == 3
    assert venue.get(at).json()["internal_notes"] is None
    assert [one["to_status"] for one in venue.get(f"{at}/history").json()["history"]] == ["PENDING"] * 3


def test_update_requires_the_version_that_was_seen(venue: httpx.Client) -> None:
    booking = made(venue)
    at = f"{BOOKINGS}/{booking['id']}"

    missing = venue.put(at, json={"party_size": 2})

    assert (missing.status_code, missing.json()["field"]) == (400, "expected_version")
    assert venue.put(at, json={"party_size": 2, "expected_version": 2}).status_code == 409, "a version in the future"
    assert venue.put(at, json={"party_size": 2, "expected_version": "1"}).status_code == 400
    assert venue.put(at, json={"party_size": 2}, headers={"If-Match": '"7"'}).status_code == 412
    assert venue.put(at, json={"party_size": 2}, headers={"If-Match": '"1"'}).status_code == 200
    assert venue.put(at, json={"party_size": 3, "expected_version": 1}).status_code == 409, "two updates on one version"
    assert venue.put(at, json={"expected_version": 2}).json()["field"] == "body"
    assert venue.put(f"{BOOKINGS}/{uuid4()}", json={"party_size": 3, "expected_version": 1}).status_code == 404


def test_update_rechecks_availability_and_leaves_the_booking_if_there_is_no_room(venue: httpx.Client) -> None:
    booking = made(venue, party_size=4)
    made(venue, party_size=15)
    at = f"{BOOKINGS}/{booking['id']}"

    full = venue.put(at, json={"expected_version": 1, "party_size": 6})
    too_many = venue.put(at, json={"expected_version": 1, "party_size": 21})

    assert (full.status_code, full.json()["available_quantity"]) == (409, 5)
    assert (too_many.status_code, too_many.json()["field"]) == (400, "party_size")
    assert venue.get(at).json()["party_size"] == 4
    assert venue.put(at, json={"expected_version": 1, "party_size": 5}).status_code == 200


def test_a_booking_can_not_be_moved_into_the_past(venue: httpx.Client) -> None:
    booking = made(venue)
    at = f"{BOOKINGS}/{booking['id']}"

    answer = venue.put(at, json={"expected_version": 1, "booking_date": "2020-05-03"})

    assert (answer.status_code, answer.json()["field"]) == (400, "booking_date")
    assert venue.get(at).json()["booking_date"] == booking["booking_date"]
    assert venue.put(at, json={"party_size": 5}, headers={"If-Match": "*"}).status_code == 200


def test_another_duration_leaves_the_start_also_where_the_clock_shows_it_twice(venue: httpx.Client) -> None:
    booking = made(venue, booking_date="2030-10-27", booking_time="02:30", duration_minutes=60)
    later = {"start": "2030-10-27T01:30:00Z", "end": "2030-10-27T02:30:00Z"}
    assert venue.put(f"/reservations/{booking['id']}", json=later).status_code == 200

    longer = venue.put(f"{BOOKINGS}/{booking['id']}", json={"expected_version": 2, "duration_minutes": 90}).json()

    assert (longer["start"], longer["end"]) == ("2030-10-27T01:30:00Z", "2030-10-27T03:00:00Z")


def test_the_answer_to_a_key_outlives_a_change_of_the_venue(venue: httpx.Client) -> None:
    first = book(venue, idempotency_key="order-7")
    venue.patch("/items/VELA-TABLES", json={"venue": "elsewhere"})

    # The first of these finds that what is remembered of the venue is wrong.
    assert [book(venue).status_code for _ in range(2)] == [404, 404]
    again = book(venue, idempotency_key="order-7")
    other = book(venue, idempotency_key="order-8")

    assert (again.status_code, again.json(), again.headers["Idempotency-Replayed"]) == (201, first.json(), "true")
    assert (other.status_code, other.json()["type"]) == (404, "/problems/unknown-venue")


def test_a_guest_may_have_any_id(venue: httpx.Client) -> None:
    booking = made(venue, guest_id="x/y")

    assert [one["id"] for one in venue.get(f"{BOOKINGS}/guest/x%2Fy").json()["bookings"]] == [booking["id"]]


def test_one_client_can_not_use_up_all_waiting(venue: httpx.Client) -> None:
    places = {"sku": "HALL", "name": "Hall", "kind": "calendar", "capacity": 1_000, "time_zone": "UTC", "venue": "hall"}
    venue.post("/items", json=places)

    def wait(client: str) -> bool:
        wanted = EVENING | {"venue_id": "hall", "party_size": 1}
        answer = clients.post(BOOKINGS, json=wanted, headers={"Prefer": "wait=4", "X-Client-Id": client}, timeout=60)
        return "Preference-Applied" in answer.headers

    limits = httpx.Limits(max_connections=250)
    with httpx.Client(base_url=venue.base_url, limits=limits) as clients, ThreadPoolExecutor(250) as threads:
        greedy = [threads.submit(wait, "greedy") for _ in range(240)]
        others = threads.submit(wait, "other")

    assert others.result()
    assert 0 < sum(one.result() for one in greedy) < 240


def test_an_update_with_a_key_is_done_once(venue: httpx.Client) -> None:
    booking = made(venue)
    change = {"expected_version": 1, "party_size": 2, "guest_name": "Zoë", "idempotency_key": "update-1"}

    first, again = (venue.put(f"{BOOKINGS}/{booking['id']}", json=change) for _ in range(2))

    assert first.json() == again.json()
    assert (first.json()["version"], again.headers["Idempotency-Replayed"]) == (2, "true")


def test_a_booking_that_is_over_can_not_be_updated(venue: httpx.Client) -> None:
    booking = made(venue)
    at = f"{BOOKINGS}/{booking['id']}"
    venue.post(f"{at}/cancel")

    answer = venue.put(at, json={"expected_version": 2, "party_size": 2})

    assert (answer.status_code, answer.json()["current_status"]) == (409, "CANCELLED")
