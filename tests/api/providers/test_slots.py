"""Slots and their bookings over HTTP, by the lines of 3-slots-providers-sqs.md."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import func, select, update

from domain.items import items
from domain.reservations.table import reservations
from tests.api.providers.conftest import MORNING, PROVIDER, SLOTS, USER, book, booked, decide, publish, published
from tests.support.builders import Db, a_calendar, an_item, let_lapse, the


def problem(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["type"].removeprefix("/problems/")


def test_a_slot_is_published_listed_and_read(api: httpx.Client) -> None:
    answer = publish(api)

    slot = {
        "id": "slot-123",
        "providerId": PROVIDER,
        "name": "Consultation",
        "start": "2030-02-19T10:00:00Z",
        "end": "2030-02-19T11:00:00Z",
        "status": "available",
    }
    assert (answer.status_code, answer.json()) == (201, slot)
    assert api.get(answer.headers["Location"]).json() == slot
    assert api.get(SLOTS).json() == {"slots": [slot], "nextCursor": None}
    assert problem(api.get("/providers/another/slots/slot-123")) == (404, "unknown-slot")
    assert api.get("/providers/another/slots").json()["slots"] == []


def test_a_slot_without_an_id_gets_one(api: httpx.Client) -> None:
    answer = api.post(SLOTS, json={name: MORNING[name] for name in ("start", "end")})

    assert answer.status_code == 201
    assert UUID(answer.json()["id"])


def test_slots_are_listed_in_order_of_start_in_pages_and_within_bounds(api: httpx.Client) -> None:
    for hour in (12, 9, 15, 10):
        published(api, slotId=f"at-{hour}", start=f"2030-02-19T{hour:02}:00:00Z", end=f"2030-02-19T{hour:02}:30:00Z")
    first = api.get(SLOTS, params={"limit": 3}).json()

    rest = api.get(SLOTS, params={"limit": 3, "cursor": first["nextCursor"]}).json()
    between = api.get(SLOTS, params={"from": "2030-02-19T10:00:00Z", "to": "2030-02-19T15:00:00Z"}).json()

    assert [slot["id"] for slot in first["slots"]] == ["at-9", "at-10", "at-12"]
    assert ([slot["id"] for slot in rest["slots"]], rest["nextCursor"]) == (["at-15"], None)
    assert [slot["id"] for slot in between["slots"]] == ["at-10", "at-12"]
    for cursor in ("nonsense", "20300219T100000.000000Z_99999999999999999999", "20300219T100000.000000Z_-1"):
        assert problem(api.get(SLOTS, params={"cursor": cursor})) == (400, "invalid-request")


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("2030-02-19T10:30:00Z", "2030-02-19T11:30:00Z"),
        ("2030-02-19T09:30:00Z", "2030-02-19T10:00:01Z"),
        ("2030-02-19T10:15:00Z", "2030-02-19T10:20:00Z"),
        ("2030-02-01T00:00:00Z", "2030-03-01T00:00:00Z"),
    ],
)
def test_slots_of_a_provider_overlap_only_if_that_is_asked_for(api: httpx.Client, start: str, end: str) -> None:
    published(api)

    refused = publish(api, slotId="second", start=start, end=end)

    assert problem(refused) == (409, "slots-overlap")
    assert "slot-123" in refused.json()["detail"]
    assert len(api.get(SLOTS).json()["slots"]) == 1
    assert publish(api, slotId="second", start=start, end=end, allowOverlap=True).status_code == 201
    of_another = MORNING | {"slotId": "third", "start": start, "end": end}
    assert api.post("/providers/another/slots", json=of_another).status_code == 201


def test_slots_that_touch_do_not_overlap(api: httpx.Client) -> None:
    published(api)

    assert publish(api, slotId="later", start=MORNING["end"], end="2030-02-19T12:00:00Z").status_code == 201
    assert publish(api, slotId="earlier", start="2030-02-19T09:00:00Z", end=MORNING["start"]).status_code == 201


def test_of_slots_that_are_published_at_once_for_the_same_time_one_is_taken(api: httpx.Client) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda number: publish(api, slotId=f"slot-{number}"), range(8)))

    assert sorted(answer.status_code for answer in answers) == [201] + 7 * [409]
    assert len(api.get(SLOTS).json()["slots"]) == 1


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"start": "2020-01-01T10:00:00Z", "end": "2020-01-01T11:00:00Z"}, "start"),
        ({"end": MORNING["start"]}, "end"),
        ({"end": "2030-03-22T10:00:01Z"}, "end"),
        ({"start": "2030-02-19T10:00:00"}, "start"),
        ({"start": "tomorrow"}, "start"),
        ({"slotId": "a/b"}, "slotId"),
        ({"slotId": ""}, "slotId"),
        ({"slotId": "s1\n"}, "slotId"),
        ({"slotId": ".."}, "slotId"),
        ({"name": ""}, "name"),
        ({"capacity": 2}, "capacity"),
    ],
)
def test_a_slot_that_can_not_be_is_refused_and_leaves_nothing(
    api: httpx.Client, db: Db, fields: dict[str, object], field: str
) -> None:
    refused = publish(api, **fields)

    assert (*problem(refused), refused.json()["field"]) == (400, "invalid-request", field)
    with db.begin() as session:
        assert session.execute(select(func.count()).select_from(items)).scalar_one() == 0


def test_a_slot_has_one_unit_and_stays_with_its_provider(api: httpx.Client) -> None:
    published(api)

    for change in ({"adjust_quantity_by": 1}, {"provider": "another"}, {"provider": None}, {"capacity": 3}):
        assert problem(api.patch("/items/slot-123", json=change)) == (400, "invalid-request")
    withdrawn = api.patch("/items/slot-123", json={"adjust_quantity_by": -1})

    assert withdrawn.status_code == 200
    assert api.get(SLOTS).json()["slots"] == []
    assert problem(book(api)) == (409, "slot-taken")
    assert publish(api, slotId="instead").status_code == 201
    # For then one hour could be booked twice.
    assert problem(api.patch("/items/slot-123", json={"adjust_quantity_by": 1})) == (400, "invalid-request")


def test_post_bookings_201_is_pending_until_the_slot_begins(api: httpx.Client, db: Db) -> None:
    published(api)

    answer = book(api)

    booking = answer.json()
    assert answer.status_code == 201
    assert booking == {
        "id": booking["id"],
        "userId": USER,
        "providerId": PROVIDER,
        "slotId": "slot-123",
        "start": "2030-02-19T10:00:00Z",
        "end": "2030-02-19T11:00:00Z",
        "status": "pending",
    }
    assert api.get(answer.headers["Location"]).json() == booking
    assert api.get(f"{SLOTS}/slot-123").json()["status"] == "booked"
    made = the(db, booking["id"])
    assert made.expires_at is not None and made.expires_at.isoformat() == "2030-02-19T10:00:00+00:00"


def test_post_bookings_validates_that_the_slot_exists_and_is_available(api: httpx.Client, db: Db) -> None:
    published(api)
    thing, calendar = an_item(db), a_calendar(db)
    booked(api)

    assert problem(book(api)) == (409, "slot-taken")
    assert problem(book(api, slotId="nowhere")) == (404, "unknown-slot")
    assert problem(book(api, slotId=thing.sku)) == (404, "unknown-slot")
    assert problem(book(api, slotId=calendar.sku)) == (404, "unknown-slot")
    assert problem(book(api, userId="")) == (400, "invalid-request")
    assert problem(api.post("/bookings", json={"slotId": "slot-123"})) == (400, "invalid-request")


def test_a_slot_that_has_begun_is_not_booked(api: httpx.Client, db: Db) -> None:
    published(api)
    with db.begin() as session:
        begun = func.now() - timedelta(minutes=1)
        session.execute(update(items).values(slot_starts_at=begun, slot_ends_at=begun + timedelta(hours=1)))

    assert problem(book(api)) == (409, "slot-has-begun")


def test_a_slot_is_booked_as_one_and_in_no_basket(api: httpx.Client, db: Db) -> None:
    """Nobody but its provider would confirm it."""
    published(api)
    alone, thing = {"sku": "slot-123", "quantity": 1}, {"sku": an_item(db).sku, "quantity": 1}

    for wanted in (alone, {"lines": [alone, thing]}):
        refused = api.post("/reservations", json=wanted)
        assert (*problem(refused), refused.json()["field"]) == (400, "invalid-request", "item_id")
    assert book(api).status_code == 201


def test_nobody_keeps_a_booking_pending_beyond_the_start_of_its_slot(api: httpx.Client) -> None:
    published(api)
    booking = booked(api)

    extended = api.post(f"/reservations/{booking['id']}/extend", json={"ttl_seconds": 604_800})
    longer = api.get(f"/reservations/{booking['id']}").json()

    assert extended.status_code in (200, 400)
    assert longer["expires_at"] == MORNING["start"]


def test_a_provider_may_have_any_name(api: httpx.Client) -> None:
    slots = "/providers/x%2Fy/slots"
    assert api.post(slots, json=MORNING).json()["providerId"] == "x/y"
    booking = booked(api)

    accepted = api.post(f"/providers/x%2Fy/bookings/{booking['id']}/accept")

    assert [one["providerId"] for one in api.get(slots).json()["slots"]] == ["x/y"]
    assert accepted.json()["booking"]["status"] == "confirmed"


def test_of_ten_users_who_book_a_slot_at_once_one_gets_it(api: httpx.Client) -> None:
    published(api)

    with ThreadPoolExecutor(10) as threads:
        answers = list(threads.map(lambda number: book(api, userId=f"user-{number}"), range(10)))

    assert sorted(answer.status_code for answer in answers) == [201] + 9 * [409]


def test_ten_identical_posts_with_one_key_make_one_booking(api: httpx.Client) -> None:
    published(api)
    asked = {"slotId": "slot-123", "userId": USER}

    with ThreadPoolExecutor(10) as threads:
        send = lambda _: api.post("/bookings", json=asked, headers={"Idempotency-Key": "once"})  # noqa: E731
        answers = list(threads.map(send, range(10)))

    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1


def test_accept_200_makes_it_confirmed(api: httpx.Client) -> None:
    published(api)
    booking = booked(api)

    answer = decide(api, booking, "accept")

    accepted = booking | {"status": "confirmed"}
    assert (answer.status_code, answer.json()) == (
        200,
        {"message": "Booking accepted successfully", "booking": accepted},
    )
    assert api.get(f"/bookings/{booking['id']}").json() == accepted


def test_reject_200_makes_it_rejected_and_the_slot_can_be_booked_again(api: httpx.Client) -> None:
    published(api)
    booking = booked(api)

    answer = decide(api, booking, "reject")

    assert (answer.status_code, answer.json()) == (
        200,
        {"message": "Booking rejected successfully", "booking": booking | {"status": "rejected"}},
    )
    assert booked(api)["id"] != booking["id"]


@pytest.mark.parametrize("decision", ["accept", "reject"])
def test_404_booking_not_found_or_does_not_belong_to_provider(api: httpx.Client, db: Db, decision: str) -> None:
    published(api)
    booking = booked(api)
    of_stock = api.post("/reservations", json={"sku": an_item(db).sku, "quantity": 1}).json()

    assert problem(decide(api, booking, decision, provider="another")) == (404, "unknown-reservation")
    assert problem(decide(api, {"id": uuid4()}, decision)) == (404, "unknown-reservation")
    assert problem(decide(api, of_stock, decision)) == (404, "unknown-reservation")
    assert problem(api.get(f"/bookings/{of_stock['id']}")) == (404, "unknown-reservation")
    assert api.get(f"/bookings/{booking['id']}").json()["status"] == "pending"


@pytest.mark.parametrize("decision", ["accept", "reject"])
@pytest.mark.parametrize("before", ["accept", "reject"])
def test_409_wrong_status(api: httpx.Client, before: str, decision: str) -> None:
    published(api)
    booking = booked(api)
    assert decide(api, booking, before).status_code == 200

    assert problem(decide(api, booking, decision)) == (409, "wrong-status")


def test_a_decision_is_repeated_with_its_key(api: httpx.Client) -> None:
    published(api)
    booking = booked(api)
    at = f"/providers/{PROVIDER}/bookings/{booking['id']}/accept"

    first, second = (api.post(at, headers={"Idempotency-Key": "once"}) for _ in range(2))

    assert (first.status_code, first.json()) == (second.status_code, second.json())
    assert second.headers["Idempotency-Replayed"] == "true"


def test_accept_409_once_the_slot_has_begun(api: httpx.Client, db: Db) -> None:
    published(api)
    booking = booked(api)
    let_lapse(db, UUID(booking["id"]))

    assert problem(decide(api, booking, "accept")) == (409, "hold-expired")
    assert api.get(f"/bookings/{booking['id']}").json()["status"] == "expired"


def test_cancel_200_frees_the_slot_before_and_after_it_was_accepted(api: httpx.Client) -> None:
    published(api)
    for is_accepted in (False, True):
        booking = booked(api)
        if is_accepted:
            decide(api, booking, "accept")

        answer = api.post(f"/bookings/{booking['id']}/cancel", json={"reason": "Ill"})

        cancelled = booking | {"status": "cancelled"}
        assert (answer.status_code, answer.json()) == (
            200,
            {"message": "Booking cancelled successfully", "booking": cancelled},
        )
        assert problem(api.post(f"/bookings/{booking['id']}/cancel")) == (409, "wrong-status")
    assert problem(api.post(f"/bookings/{uuid4()}/cancel")) == (404, "unknown-reservation")


def test_the_history_of_a_booking_is_its_audit_trail(api: httpx.Client) -> None:
    published(api)
    booking = booked(api)
    decide(api, booking, "accept")
    api.post(f"/bookings/{booking['id']}/cancel", json={"reason": "Ill"})

    found = api.get(f"/bookings/{booking['id']}/history").json()

    assert found["bookingId"] == booking["id"]
    changes = [(one["fromStatus"], one["toStatus"], one["reason"]) for one in found["history"]]
    assert changes == [(None, "pending", None), ("pending", "confirmed", None), ("confirmed", "cancelled", "Ill")]
    assert problem(api.get(f"/bookings/{uuid4()}/history")) == (404, "unknown-reservation")


@pytest.mark.parametrize("others", [("accept", "reject"), ("accept", "cancel"), ("reject", "cancel")])
def test_of_two_decisions_at_once_one_counts(api: httpx.Client, db: Db, others: tuple[str, str]) -> None:
    for number in range(8):
        slot_id = f"slot-{number}"
        day = f"2030-03-{number + 1:02}"
        published(api, slotId=slot_id, start=f"{day}T10:00:00Z", end=f"{day}T11:00:00Z")
        booking = booked(api, slotId=slot_id)
        paths = {
            "accept": f"/providers/{PROVIDER}/bookings/{booking['id']}/accept",
            "reject": f"/providers/{PROVIDER}/bookings/{booking['id']}/reject",
            "cancel": f"/bookings/{booking['id']}/cancel",
        }
        with ThreadPoolExecutor(2) as threads:
            answers = list(threads.map(lambda name: api.post(paths[name]).status_code, others))  # noqa: B023

        # What is accepted first can be cancelled afterwards.
        assert sorted(answers) in ([200, 409], [200, 200] if others == ("accept", "cancel") else [200, 409])
        free = api.get(f"{SLOTS}/{slot_id}").json()["status"] == "available"
        status = api.get(f"/bookings/{booking['id']}").json()["status"]
        assert free == (status in ("rejected", "cancelled"))
    with db.begin() as session:
        held = select(func.count()).where(reservations.c.status == "CONFIRMED").scalar_subquery()
        assert session.execute(select(func.sum(1 - items.c.available_quantity) == held)).scalar_one()
