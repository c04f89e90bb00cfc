"""The saga of a booking, with services over real connections: whatever they do, money and units agree in the end."""

from dataclasses import replace
from decimal import Decimal
from uuid import UUID

import pytest

from domain.bookings import Source, State
from domain.bookings.saga import ASKED_BY, Step
from domain.fulfilment import STEP_TYPES
from domain.fulfilment.saga import Answer, Result, settle
from domain.reservations.lifecycle import Status
from domain.runtime.database import now
from tests.support.builders import a_calendar, hours, routes_of
from tests.worker.steps.conftest import VENUE, Harness, OpenHarness
from worker.steps.service import BadAnswer, name_of


def test_a_booking_is_held_priced_paid_and_confirmed_in_this_order(a_harness: OpenHarness) -> None:
    harness = a_harness()
    booking = harness.book(party_size=2)

    harness.run(1)

    assert harness.status(booking) == (Status.CONFIRMED, None)
    assert harness.services.asked() == ["inventory_hold", "price_quote", "payment_intent", "reservation_confirm"]
    found = harness.booking(booking)
    assert (found.inventory, found.pricing, found.payment) == (State.DONE, State.DONE, State.DONE)
    assert found.price and (found.price.total, found.price_source) == (Decimal("66.00"), Source.QUOTED)
    assert (found.inventory_reservation_id, found.payment_intent_id) == ("inventory-1", "payment-1")
    paid = harness.services.entry("payment", booking)
    assert paid and (paid.amount, paid.currency, paid.done) == ("66.00", "EUR", 1)


def test_without_a_confirmation_service_a_booking_is_confirmed_when_it_is_paid(a_harness: OpenHarness) -> None:
    harness = a_harness(Step.PAYMENT)
    booking = harness.book()

    harness.run(1)

    assert harness.status(booking) == (Status.CONFIRMED, None)
    assert harness.services.asked() == ["payment_intent"]
    assert harness.booking(booking).price_source is Source.DEFAULT


def test_a_booking_that_needs_no_service_waits_for_people(a_harness: OpenHarness) -> None:
    harness = a_harness(Step.CONFIRMATION)
    booking = harness.book()
    harness.run(1)
    assert harness.services.asked() == ["reservation_confirm"]
    assert harness.status(booking) == (Status.CONFIRMED, None)


def test_nothing_is_to_be_paid_for_a_booking_that_costs_nothing(a_harness: OpenHarness) -> None:
    harness = a_harness(Step.PAYMENT, Step.CONFIRMATION, list_price="0.00")
    booking = harness.book()

    harness.run(1)

    assert harness.status(booking)[0] is Status.CONFIRMED
    assert harness.services.asked() == ["reservation_confirm"]


#: Other bookings that are made meanwhile: more than it takes to know whose fault it is.
MOST_OTHERS = 150

#: What each step does that ends in no answer, and the end: the status with its reason.
NOT_TO_BE_HAD = {
    ("inventory_hold", "refused"): (Status.REJECTED, "inventory-refused"),
    ("inventory_hold", "nonsense"): (Status.CANCELLED, "inventory-unavailable"),
    ("payment_intent", "refused"): (Status.REJECTED, "payment-refused"),
    ("payment_intent", "nonsense"): (Status.CANCELLED, "payment-unavailable"),
    ("reservation_confirm", "refused"): (Status.REJECTED, "confirmation-declined"),
}


@pytest.mark.parametrize(("event", "fault"), NOT_TO_BE_HAD)
def test_what_was_done_is_undone_when_a_step_can_not_be_had(a_harness: OpenHarness, event: str, fault: str) -> None:
    harness = a_harness()
    booking = harness.book()
    harness.services.has_for(booking, event, fault)

    others: list[UUID] = []
    while harness.status(booking)[0] is Status.PENDING and len(others) < MOST_OTHERS:
        # Those that are answered show that it is this one's fault.
        others += [harness.book(1) for _ in range(10)]
        harness.run(1)
    harness.run()

    assert harness.status(booking) == NOT_TO_BE_HAD[event, fault]
    assert {harness.status(other)[0] for other in others} == {Status.CONFIRMED}
    balanced(harness, booking, *others)


@pytest.mark.parametrize("fault", ["hangs", "late", "broken", "down", "nonsense"])
@pytest.mark.parametrize("event", ["inventory_hold", "price_quote", "payment_intent", "reservation_confirm"])
def test_a_step_that_fails_once_is_taken_once(a_harness: OpenHarness, event: str, fault: str) -> None:
    harness = a_harness(list_price=None)
    harness.services.has(event, fault)
    booking = harness.book()

    harness.run(8)

    assert harness.status(booking) == (Status.CONFIRMED, None)
    assert len(harness.services.keys(event)) == 1
    balanced(harness, booking)


@pytest.mark.parametrize("fault", ["refused", "hangs", "late", "broken", "down", "nonsense"])
def test_without_a_quote_the_list_price_counts_and_the_booking_says_so(a_harness: OpenHarness, fault: str) -> None:
    harness = a_harness(list_price="25.00")
    harness.services.has("price_quote", ever=fault)
    booking = harness.book(party_size=3)

    harness.run(2)

    found = harness.booking(booking)
    assert harness.status(booking) == (Status.CONFIRMED, None)
    assert found.price and (found.price.total, found.price_source) == (Decimal("75.00"), Source.DEFAULT)
    paid = harness.services.entry("payment", booking)
    assert paid and paid.amount == "75.00"


@pytest.mark.parametrize("event", ["inventory_hold", "price_quote", "payment_intent"])
def test_a_booking_that_expires_while_a_service_is_down_is_undone_when_it_is_back(
    a_harness: OpenHarness, event: str
) -> None:
    harness = a_harness(list_price=None, max_attempts=100)
    harness.services.has(event, ever="down")
    booking = harness.book()
    harness.run(3)
    assert harness.status(booking)[0] is Status.PENDING

    harness.lapse(booking)
    harness.expire()
    harness.services.has(event)
    harness.run()

    assert harness.status(booking)[0] is Status.EXPIRED
    balanced(harness, booking)


@pytest.mark.parametrize("is_seen", [False, True])
@pytest.mark.parametrize("event", ["inventory_hold", "price_quote", "payment_intent", "reservation_confirm"])
def test_an_answer_that_comes_after_the_hold_has_lapsed_is_undone(
    a_harness: OpenHarness, event: str, is_seen: bool
) -> None:
    """Whether maintenance has seen that it lapsed, or not. What was paid is given back, and an event says so."""
    harness = a_harness(list_price=None, max_attempts=100)
    harness.services.has(event, "late")
    booking = harness.book()
    harness.relay.run_side_by_side()
    harness.lapse(booking)
    if is_seen:
        harness.expire()

    harness.run()

    assert harness.status(booking)[0] is Status.EXPIRED
    balanced(harness, booking)
    if event in ("payment_intent", "reservation_confirm"):
        assert "booking.refunded" in harness.states()


@pytest.mark.parametrize("event", ["inventory_hold", "price_quote", "payment_intent", "reservation_confirm"])
def test_a_hold_that_lapses_while_a_service_answers_is_undone(a_harness: OpenHarness, event: str) -> None:
    harness = a_harness()
    booking = harness.book()
    harness.services.meanwhile = lambda asked: harness.lapse(booking) if asked == event else None

    harness.run()

    assert harness.status(booking)[0] is Status.EXPIRED
    assert [asked for asked in harness.services.asked() if asked in ASKED_BY][-1] == event
    balanced(harness, booking)


@pytest.mark.parametrize("asked", ["inventory_hold", "price_quote", "payment_intent", "reservation_confirm", None])
def test_a_booking_that_is_cancelled_at_any_step_is_undone(a_harness: OpenHarness, asked: str | None) -> None:
    harness = a_harness()
    if asked:
        harness.services.has(asked, "late")
    booking = harness.book()
    harness.relay.run_side_by_side()

    harness.change(booking, Status.CANCELLED)
    harness.run()

    assert harness.status(booking) == (Status.CANCELLED, "because")
    balanced(harness, booking)


@pytest.mark.parametrize("payment", ["ok", "late"])
def test_the_last_step_is_undone_first(a_harness: OpenHarness, payment: str) -> None:
    """Also if nobody knows yet whether it was done."""
    harness = a_harness()
    harness.services.has("payment_intent", payment)
    booking = harness.book()
    harness.relay.run_side_by_side()

    harness.change(booking, Status.CANCELLED)
    harness.run(6)

    assert harness.services.asked()[-2:] == ["payment_refund", "inventory_release"]
    assert harness.booking(booking).payment is State.UNDONE


@pytest.mark.parametrize("event", ["payment_refund", "inventory_release"])
@pytest.mark.parametrize("fault", ["hangs", "late", "broken", "down"])
def test_an_undoing_that_fails_once_is_done_once(a_harness: OpenHarness, event: str, fault: str) -> None:
    harness = a_harness()
    booking = harness.book()
    harness.run(1)
    harness.services.has(event, fault)

    harness.change(booking, Status.CANCELLED)
    harness.run()

    assert len(harness.services.keys(event)) == 1
    balanced(harness, booking)


def test_an_undoing_that_can_not_be_had_is_a_dead_letter_and_the_others_are_done(a_harness: OpenHarness) -> None:
    harness = a_harness()
    others = [harness.book() for _ in range(20)]
    booking = harness.book()
    harness.run(2)
    for other in others[:10]:
        harness.change(other, Status.CANCELLED)
    harness.run(3)
    harness.services.has("payment_refund", ever="refused")
    harness.services.books["payment"].undoes = None

    harness.change(booking, Status.CANCELLED)
    harness.run()

    found = harness.booking(booking)
    assert (found.payment, found.inventory) == (State.NOT_UNDONE, State.UNDONE)
    assert harness.states()["payment_refund"].count("dead") == 1


def test_somebody_may_confirm_a_booking_by_hand_and_it_is_paid_all_the_same(a_harness: OpenHarness) -> None:
    harness = a_harness()
    harness.services.has("price_quote", "late")
    booking = harness.book()
    harness.relay.run_side_by_side()

    harness.change(booking, Status.CONFIRMED)
    harness.run()

    assert harness.status(booking)[0] is Status.CONFIRMED
    balanced(harness, booking)


def test_a_booking_that_is_changed_is_held_priced_and_paid_by_its_new_terms(a_harness: OpenHarness) -> None:
    harness = a_harness()
    booking = harness.book(party_size=2)
    harness.run(1)

    harness.reschedule(booking, quantity=3)
    harness.run(1)

    assert harness.services.asked()[4:] == ["inventory_hold", "price_quote", "payment_intent"]
    assert harness.status(booking) == (Status.CONFIRMED, None)
    found = harness.booking(booking)
    assert found.price and (found.price.total, found.price_source) == (Decimal("99.00"), Source.QUOTED)
    paid, held = (harness.services.entry(name, booking) for name in ("payment", "inventory"))
    assert paid and held and (paid.amount, held.quantity) == ("99.00", 3)
    assert found.former_terms is None
    balanced(harness, booking)


@pytest.mark.parametrize("asked", ["inventory_hold", "price_quote", "payment_intent", "reservation_confirm"])
def test_a_booking_may_be_changed_while_a_service_is_asked_about_it(a_harness: OpenHarness, asked: str) -> None:
    harness = a_harness(list_price=None, max_attempts=100)
    harness.services.has(asked, "late")
    booking = harness.book(party_size=2)
    harness.relay.run_side_by_side()

    harness.reschedule(booking, quantity=3)

    # No step is asked for before the answers to those before it.
    pending = {name for name, states in harness.states().items() if name in STEP_TYPES and "pending" in states}
    assert pending <= {"inventory_hold", asked}
    harness.run()
    assert harness.status(booking)[0] is Status.CONFIRMED
    paid, held = (harness.services.entry(name, booking) for name in ("payment", "inventory"))
    assert paid and held and (paid.amount, held.quantity) == ("99.00", 3)
    balanced(harness, booking)


@pytest.mark.parametrize("event", ["inventory_hold", "payment_intent"])
def test_a_change_that_a_service_refuses_is_taken_back(a_harness: OpenHarness, event: str) -> None:
    harness = a_harness()
    booking = harness.book(party_size=2)
    harness.run(1)
    harness.services.has(event, "refused")

    harness.reschedule(booking, quantity=3)
    harness.run(3)

    assert harness.status(booking)[0] is Status.CONFIRMED
    assert harness.reservation(booking).quantity == 2
    found = harness.booking(booking)
    assert found.price and (found.price.total, found.price_source) == (Decimal("66.00"), Source.QUOTED)
    paid, held = (harness.services.entry(name, booking) for name in ("payment", "inventory"))
    assert paid and held and (paid.amount, held.quantity) == ("66.00", 2)
    assert found.former_terms is None
    balanced(harness, booking)


def test_a_change_that_is_refused_ends_a_booking_whose_former_time_is_taken(a_harness: OpenHarness) -> None:
    harness = a_harness()
    booking = harness.book(party_size=390)
    harness.run(1)
    harness.services.has_for(booking, "inventory_hold", "refused")
    harness.reschedule(booking, period=hours(10, 12))
    other = harness.book(party_size=20)

    harness.run()

    assert harness.status(booking) == (Status.CANCELLED, "inventory-refused")
    assert harness.status(other)[0] is Status.CONFIRMED
    balanced(harness, booking, other)


def test_a_booking_that_is_cancelled_while_its_change_is_asked_about_is_undone(a_harness: OpenHarness) -> None:
    harness = a_harness()
    booking = harness.book(party_size=2)
    harness.run(1)
    harness.services.has("inventory_hold", "late")
    harness.reschedule(booking, quantity=3)
    harness.relay.run_side_by_side()

    harness.change(booking, Status.CANCELLED)
    harness.run()

    assert harness.status(booking)[0] is Status.CANCELLED
    balanced(harness, booking)


@pytest.mark.parametrize("event", ["inventory_hold", "price_quote", "payment_intent"])
def test_a_step_that_is_given_up_after_a_change_is_not_taken_as_done(a_harness: OpenHarness, event: str) -> None:
    """A quote is asked for anew. Anything else may have been done, and asked for anew it could be done twice."""
    harness = a_harness(list_price=None, max_attempts=100)
    harness.services.has(event, "late")
    booking = harness.book(party_size=2)
    harness.relay.run_side_by_side()
    harness.reschedule(booking, quantity=3)

    with harness.db.begin() as session:
        given_up = Answer(reservation_id=booking, event_type=event, result=Result.GIVEN_UP, version=1)
        settle(session, [given_up], routes_of(harness.db), now(session))
    harness.run()

    ends = {"inventory_hold": "inventory-unavailable", "payment_intent": "payment-unavailable"}
    if event in ends:
        assert harness.status(booking) == (Status.CANCELLED, ends[event])
    else:
        found = harness.booking(booking)
        assert harness.status(booking)[0] is Status.CONFIRMED
        assert found.price and (found.price.total, found.price_source) == (Decimal("99.00"), Source.QUOTED)
    balanced(harness, booking)


def test_a_venue_that_can_not_be_priced_leaves_the_others_their_quotes(a_harness: OpenHarness) -> None:
    harness = a_harness(Step.PRICING)
    price = {"price_amount": "25.00", "price_currency": "EUR", "price_per": "unit"}
    other = replace(harness, calendar=a_calendar(harness.db, 400, time_zone="Europe/Rome", venue=VENUE, price=price))
    bad = [harness.book(1) for _ in range(12)]
    for booking in bad:
        harness.services.has_for(booking, "price_quote", "broken")
    harness.run(1)

    good = other.book(2)
    harness.run(1)

    assert {harness.booking(booking).price_source for booking in bad} == {Source.DEFAULT}
    found = harness.booking(good)
    assert found.price and (found.price.total, found.price_source) == (Decimal("66.00"), Source.QUOTED)


@pytest.mark.parametrize("name", ["\0", "x\udfff", "", "x" * 256, 7])
def test_a_name_that_can_not_be_stored_is_a_bad_answer(name: object) -> None:
    with pytest.raises(BadAnswer):
        name_of({"payment_intent_id": name}, "payment_intent_id")


def test_without_a_list_price_the_former_quote_is_no_price_for_a_changed_booking(a_harness: OpenHarness) -> None:
    harness = a_harness(list_price=None)
    booking = harness.book(party_size=2)
    harness.run(1)
    harness.services.has("price_quote", "broken")

    harness.reschedule(booking, quantity=6)
    changed = harness.booking(booking)
    harness.run()

    assert (changed.price, changed.price_source) == (None, None)
    found, paid = harness.booking(booking), harness.services.entry("payment", booking)
    assert found.price and (found.price.total, found.price_source) == (Decimal("198.00"), Source.QUOTED)
    assert paid and paid.amount == "198.00"
    balanced(harness, booking)


def test_a_booking_that_is_changed_there_and_back_and_refused_is_over(a_harness: OpenHarness) -> None:
    harness = a_harness()
    harness.services.has("inventory_hold", "late")
    booking = harness.book(party_size=3)
    harness.relay.run_side_by_side()
    harness.services.has_for(booking, "payment_intent", "refused")

    harness.reschedule(booking, quantity=4)
    harness.reschedule(booking, quantity=3)
    harness.run()

    assert harness.status(booking) == (Status.REJECTED, "payment-refused")
    balanced(harness, booking)


def test_a_confirmed_booking_whose_way_back_is_refused_is_cancelled_and_paid_back(a_harness: OpenHarness) -> None:
    """The payment service has taken the price of the change, and does not go back to the former one."""
    harness = a_harness()
    booking = harness.book(party_size=2)
    harness.run(1)
    harness.services.has("payment_intent", "late")
    harness.reschedule(booking, quantity=6)
    harness.relay.run_side_by_side()

    harness.services.has_for(booking, "payment_intent", "denied")
    harness.reschedule(booking, quantity=2)
    harness.run()

    assert harness.status(booking) == (Status.CANCELLED, "payment-refused")
    balanced(harness, booking)


@pytest.mark.parametrize("first", ["late", "broken"])
def test_what_is_refused_after_an_unanswered_call_is_undone(a_harness: OpenHarness, first: str) -> None:
    """The first call may have been heard. If it was not, nothing is paid back, and no event says so."""
    harness = a_harness(Step.PAYMENT)
    harness.services.has("payment_intent", first, "denied")
    booking = harness.book()

    harness.run()

    has_paid = first == "late"
    assert harness.status(booking) == (Status.REJECTED, "payment-refused")
    assert "payment_refund" in harness.services.asked()
    assert harness.booking(booking).payment is (State.UNDONE if has_paid else State.REFUSED)
    assert ("booking.refunded" in harness.states()) == has_paid
    balanced(harness, booking)


def balanced(harness: Harness, *booking_ids: UUID) -> None:
    """Nobody is charged without a booking nor booked without payment, and nothing was done twice."""
    for booking_id in booking_ids:
        is_kept = harness.status(booking_id)[0] is Status.CONFIRMED
        for name in ("inventory", "payment"):
            entry = harness.services.entry(name, booking_id)
            done, undone = (entry.done, entry.undone) if entry else (0, 0)
            assert (done, undone) == (1, 0) if is_kept else done == undone <= 1, (name, entry)
    steps = {name: states for name, states in harness.states().items() if name in STEP_TYPES}
    assert not [name for name, states in steps.items() if "pending" in states]


@pytest.mark.parametrize("order", [1, -1])
def test_two_answers_about_one_booking_that_are_settled_together_both_count(a_harness: OpenHarness, order: int) -> None:
    harness = a_harness(Step.INVENTORY)
    booking = harness.book()
    harness.run(1)
    harness.change(booking, Status.CANCELLED)
    # So it is when a request that became a dead letter is replayed beside the release that followed from it.
    answers = [
        Answer(reservation_id=booking, event_type="inventory_hold", result=Result.TOO_LATE),
        Answer(reservation_id=booking, event_type="inventory_release", result=Result.DONE),
    ]

    with harness.db.begin() as session:
        settle(session, answers[::order], routes_of(harness.db), now(session))

    assert harness.booking(booking).inventory is State.UNDONE
