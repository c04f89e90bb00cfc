"""The guards of the saga of bookings: what keeps money and units balanced, whatever the services do."""

from tests.faults.mutant import Mutant

GUARD = "bookings"

SAGA_TESTS = "tests/worker/steps/test_saga.py"

#: The tests that must notice when a guard is missing.
SUITE = (SAGA_TESTS,)

STEPS, ANSWERS, OUTSIDE = "domain/bookings/saga.py", "domain/fulfilment/saga.py", "domain/reservations/outside.py"
SERVICE, PAYMENT = "worker/steps/service.py", "worker/steps/payment.py"


def _mutant(title: str, path: str, text: str, without: str, noticed_by: str) -> Mutant:
    noticed_by = f"{SAGA_TESTS}::{noticed_by}"
    return Mutant(guard=GUARD, title=title, path=path, text=text, without=without, noticed_by=noticed_by)


MUTANTS = (
    _mutant(
        "a step that may have been done is not undone",
        STEPS,
        "case State.DONE | State.AGAIN | State.UNKNOWN:",
        "case State.DONE | State.AGAIN:",
        "test_what_was_done_is_undone_when_a_step_can_not_be_had[payment_intent-nonsense]",
    ),
    _mutant(
        "a step is undone while a later one is asked for",
        STEPS,
        "case State.ASKED | State.UNDOING:",
        "case State.UNDOING:",
        "test_the_last_step_is_undone_first[late]",
    ),
    _mutant(
        "the next step is asked for before the answer to the one before it",
        STEPS,
        "if state is State.ASKED:\n            return None",
        "if state is State.ASKED:\n            continue",
        "test_a_booking_may_be_changed_while_a_service_is_asked_about_it[inventory_hold]",
    ),
    _mutant(
        "what was agreed before a change is not asked again",
        STEPS,
        "if booking.state_of(step) in (State.DONE, State.REFUSED, State.UNKNOWN):",
        "if booking.state_of(step) in (State.REFUSED, State.UNKNOWN):",
        "test_a_booking_that_is_changed_is_held_priced_and_paid_by_its_new_terms",
    ),
    _mutant(
        "what costs nothing is paid for",
        STEPS,
        "return booking.price is not None and booking.price.total == 0",
        "return False",
        "test_nothing_is_to_be_paid_for_a_booking_that_costs_nothing",
    ),
    _mutant(
        "a booking that ends is not undone",
        OUTSIDE,
        "if step := saga.back(known[reservation.id]):",
        "if (step := saga.back(known[reservation.id])) and not step:",
        "test_a_booking_that_is_cancelled_at_any_step_is_undone[None]",
    ),
    _mutant(
        "a service is asked about a hold that has lapsed",
        ANSWERS,
        "if is_overdue(one.reservation, moment) or one.answer.result is Result.TOO_LATE:",
        "if one.answer.result is Result.TOO_LATE:",
        "test_a_hold_that_lapses_while_a_service_answers_is_undone[inventory_hold]",
    ),
    _mutant(
        "an answer about former terms counts",
        ANSWERS,
        "return answer.version is not None and answer.version < booking.terms_version",
        "return False",
        "test_a_booking_may_be_changed_while_a_service_is_asked_about_it[payment_intent]",
    ),
    _mutant(
        "a change that a service refuses is not taken back",
        ANSWERS,
        "    former = former_terms(one.booking)\n",
        "    former = None\n",
        "test_a_change_that_a_service_refuses_is_taken_back[payment_intent]",
    ),
    _mutant(
        "a step that nobody has answered is passed over after a change",
        ANSWERS,
        "reason = None if one.is_outdated and not one.is_unclear else",
        "reason = None if one.is_outdated else",
        "test_a_step_that_is_given_up_after_a_change_is_not_taken_as_done[payment_intent]",
    ),
    _mutant(
        "a booking goes back to the terms that were refused",
        ANSWERS,
        "    if not differing:\n",
        "    if False:\n",
        "test_a_booking_that_is_changed_there_and_back_and_refused_is_over",
    ),
    _mutant(
        "what is refused after an unanswered call is not undone",
        ANSWERS,
        "if answer.result is not Result.REFUSED or answer.was_tried:",
        "if answer.result is not Result.REFUSED:",
        "test_what_is_refused_after_an_unanswered_call_is_undone[late]",
    ),
    _mutant(
        "of two answers about one booking the second one forgets the first",
        ANSWERS,
        "for one_for_each in _rounds(answers):",
        "for one_for_each in [answers]:",
        "test_two_answers_about_one_booking_that_are_settled_together_both_count[1]",
    ),
    _mutant(
        "a service is asked under another key each time",
        SERVICE,
        '"Idempotency-Key": str(row.event_id)',
        '"Idempotency-Key": str(__import__("uuid").uuid4())',
        "test_a_step_that_fails_once_is_taken_once[payment_intent-late]",
    ),
    _mutant(
        "a step that nobody has answered is taken as done",
        SERVICE,
        "dead = [_answer(update.row, Result.GIVEN_UP) for update in settlement.dead]",
        "dead = [_answer(update.row, Result.DONE) for update in settlement.dead]",
        "test_an_undoing_that_can_not_be_had_is_a_dead_letter_and_the_others_are_done",
    ),
)
