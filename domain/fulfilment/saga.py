"""What the answers of inventory, pricing and payment do to bookings.

The effect of an answer, the change of status that follows from it, and the event of the next step are written in the
transaction that settles the row that asked. So each happens once, however often the service is called.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from domain import bookings, outbox
from domain.bookings import Booking, State, saga
from domain.bookings.saga import ASKS, UNDOES, Ask, Confirm, Next, Step, Undo
from domain.bookings.terms import former_terms, on_the_way_back
from domain.outbox import Event, Routes
from domain.reservations import events
from domain.reservations.lifecycle import HOLDING, Status
from domain.reservations.outside import agreed, next_of
from domain.reservations.reschedule import reschedule
from domain.reservations.table import Reservation, reservations, status_by_now
from domain.reservations.transition import LOCK, NOT_CONFIRMED, SYSTEM, Change, is_overdue, transition
from domain.runtime.database import is_given
from domain.runtime.pipeline import Query, execute

#: The reasons that reservations, their history and their events have. Programs may rely on these codes.
REFUSED = {Step.INVENTORY: "inventory-refused", Step.PAYMENT: "payment-refused"}
GIVEN_UP = {
    Step.INVENTORY: "inventory-unavailable",
    Step.PRICING: "price-unavailable",
    Step.PAYMENT: "payment-unavailable",
}


#: The events that inventory, pricing and payment get.
STEP_EVENTS = frozenset({ASKS[Step.INVENTORY], ASKS[Step.PRICING], ASKS[Step.PAYMENT], *UNDOES.values()})


class Result(Enum):
    """What became of the event that asked for a step, or to undo one."""

    DONE = "done"
    REFUSED = "refused"
    #: It is a dead letter: there was no answer after the last attempt.
    GIVEN_UP = "given up"
    #: The booking was over before the service was called this time. An earlier call may have reached it.
    TOO_LATE = "too late"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of an event of this type for a booking.

    The service was asked about the `version` of the booking; without it, about the present one. `was_tried` if an
    earlier call had no answer, and may have done it. `facts` are fields of the booking with the values that the service
    has answered. `headers` tie the events that follow to the request that the service was asked for.
    """

    reservation_id: UUID
    event_type: str
    result: Result
    version: int | None = None
    was_tried: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


def still_kept(session: Session, ids: Collection[UUID]) -> Collection[UUID]:
    """Return those of these reservations that are neither over nor overdue. Nothing is locked."""
    return set(session.execute(_STILL_KEPT, {"ids": list(ids)}).scalars())


_STILL_KEPT = select(reservations.c.id).where(is_given(reservations.c.id), status_by_now.in_(sorted(HOLDING)))


@dataclass(frozen=True, slots=True)
class _Answered:
    """An answer, the reservation as it is, and its booking with the effect of the answer."""

    answer: Answer
    reservation: Reservation
    booking: Booking

    @property
    def step(self) -> Step | None:
        """The step that was asked for, if none was to be undone."""
        return saga.ASKED_BY.get(self.answer.event_type)

    @property
    def is_kept(self) -> bool:
        return self.reservation.status in HOLDING

    @property
    def is_outdated(self) -> bool:
        """Whether the answer is to a question about other terms."""
        return _is_outdated(self.answer, self.booking)

    @property
    def is_unclear(self) -> bool:
        """Whether nobody knows if the step was done. To ask anew, for other terms, could do it twice."""
        step = self.step
        return step is not None and self.booking.state_of(step) is State.UNKNOWN and not _has_agreed(self.booking, step)

    def next(self, wanted: Sequence[Step]) -> Next | None:
        """Return what comes next."""
        if self.is_kept:
            return next_of(self.reservation, self.booking, wanted)
        return saga.back(self.booking)


def settle(session: Session, answers: Sequence[Answer], routes: Routes, moment: datetime) -> None:
    """Write what the answers of one service do to bookings, and ask for what comes next. `moment` is the time now.

    If there are several about one booking, each starts from what the one before it has left.
    """
    for one_for_each in _rounds(answers):
        _settle(session, one_for_each, routes, moment)


def _rounds(answers: Sequence[Answer]) -> Iterable[Sequence[Answer]]:
    """Return the answers in rounds: the first about each booking, then the second, and so on."""
    rounds: list[dict[UUID, Answer]] = []
    for answer in answers:
        of_answer = next((one for one in rounds if answer.reservation_id not in one), None)
        if of_answer is None:
            rounds.append(of_answer := {})
        of_answer[answer.reservation_id] = answer
    return [list(one.values()) for one in rounds]


def _settle(session: Session, answers: Sequence[Answer], routes: Routes, moment: datetime) -> None:
    settled, wanted = _answered(session, answers), saga.wanted_steps(routes)
    changes = {
        one.reservation.id: change for one in settled if (change := _change(session, one, moment, wanted, routes))
    }
    others = [(one, one.next(wanted)) for one in settled if one.reservation.id not in changes]
    changed = [
        one.booking if changes[one.reservation.id].to else on_the_way_back(one.booking)
        for one in settled
        if one.reservation.id in changes
    ]
    # Before the changes of status: these undo what was done for the bookings that end.
    bookings.write(session, [*changed, *(agreed(saga.after(one.booking, found)) for one, found in others)])
    asked = [
        events.of_next(one.reservation, one.booking, found, one.answer.headers)
        for one, found in others
        if isinstance(found, Ask | Undo)
    ]
    outbox.record(session, [*_refunded(settled), *asked], routes)
    transition(session, list(changes.values()), routes, moment)


def _answered(session: Session, answers: Sequence[Answer]) -> Sequence[_Answered]:
    """Lock the reservations of answers. Return the answers with them, and with the effects on their bookings."""
    ids = {"ids": [answer.reservation_id for answer in answers]}
    locked_rows, known_rows = execute(session, [Query(LOCK, ids), Query(bookings.READ, ids)])
    locked = {row.id: Reservation.of(row) for row in locked_rows}
    known = {row.reservation_id: bookings.of_row(row) for row in known_rows}
    return [
        _Answered(answer, locked[answer.reservation_id], _with_effect(known[answer.reservation_id], answer))
        for answer in answers
    ]


def _with_effect(booking: Booking, answer: Answer) -> Booking:
    """Return a booking with the effect of an answer. One that nobody waits for any more has none."""
    step = saga.ASKED_BY.get(answer.event_type)
    if step is None:
        undone = saga.UNDONE_BY[answer.event_type]
        return booking.with_state(undone, _after_undoing(booking, undone, answer.result))
    if booking.state_of(step) is not State.ASKED:
        return booking
    is_outdated = _is_outdated(answer, booking)
    if answer.result is Result.DONE:
        # What was quoted for other terms is no price.
        facts = {} if is_outdated and step is Step.PRICING else answer.facts
        return booking.with_state(step, State.AGAIN if is_outdated else State.DONE, **facts)
    return booking.with_state(step, _without_success(booking, step, answer, is_outdated=is_outdated))


def _after_undoing(booking: Booking, step: Step, result: Result) -> State:
    """Return the state of a step after the answer to undoing it. Where there was nothing, it was never done."""
    if result is Result.REFUSED:
        return State.UNDONE if _has_agreed(booking, step) else State.REFUSED
    return State.UNDONE if result is Result.DONE else State.NOT_UNDONE


def _is_outdated(answer: Answer, booking: Booking) -> bool:
    return answer.version is not None and answer.version < booking.terms_version


def _without_success(booking: Booking, step: Step, answer: Answer, *, is_outdated: bool) -> State | None:
    """Return the state of a step after it was refused, or nobody knows whether it was done."""
    if step is Step.PRICING:
        # A quote that nobody has got leaves nothing behind.
        return None if is_outdated else State.REFUSED
    has_agreed = _has_agreed(booking, step)
    if is_outdated and has_agreed:
        return State.AGAIN
    if answer.result is not Result.REFUSED or answer.was_tried:
        return State.UNKNOWN
    if is_outdated:
        return None
    # A service that refuses a change has still what it had.
    return State.DONE if has_agreed else State.REFUSED


def _has_agreed(booking: Booking, step: Step) -> bool:
    """Return whether a service has ever done a step."""
    names = {Step.INVENTORY: booking.inventory_reservation_id, Step.PAYMENT: booking.payment_intent_id}
    return names.get(step) is not None


def _change(
    session: Session, one: _Answered, moment: datetime, wanted: Sequence[Step], routes: Routes
) -> Change | None:
    """Return the change that follows from an answer, if there is one."""
    if not one.is_kept or one.step is None:
        return None
    if is_overdue(one.reservation, moment) or one.answer.result is Result.TOO_LATE:
        return _to(one, Status.EXPIRED, NOT_CONFIRMED)
    reason = None if one.is_outdated and not one.is_unclear else _reason(one, one.step)
    if reason is None:
        return _to(one, Status.CONFIRMED) if isinstance(one.next(wanted), Confirm) else None
    back = _back(session, one, reason, routes)
    is_rejected = one.answer.result is Result.REFUSED and one.reservation.status is Status.PENDING
    return back or _to(one, Status.REJECTED if is_rejected else Status.CANCELLED, reason)


def _back(session: Session, one: _Answered, reason: str, routes: Routes) -> Change | None:
    """Return the change of a booking back to the terms that services had agreed to, if they are still free."""
    former = former_terms(one.booking)
    if former is None or one.is_unclear:
        return None
    fields = {"starts_at": former.period.start, "ends_at": former.period.end, "quantity": former.quantity}
    differing = {name: value for name, value in fields.items() if value != getattr(one.reservation, name)}
    if not differing:
        return None  # It was changed there and back: these are the terms that were refused.
    found = reschedule(session, replace(_to(one, None, reason), fields=differing), routes)
    return found if isinstance(found, Change) else None


def _reason(one: _Answered, step: Step) -> str | None:
    """Return why a booking can't be had, if the answer says so. A price is not needed where there is a list price."""
    if one.answer.result is Result.DONE or (step is Step.PRICING and one.booking.price):
        return None
    return REFUSED.get(step, GIVEN_UP[step]) if one.answer.result is Result.REFUSED else GIVEN_UP[step]


def _to(one: _Answered, status: Status | None, reason: str | None = None) -> Change:
    has_refused = one.answer.result is Result.REFUSED and one.step is not None
    changed_by = f"{one.step}-service" if has_refused else SYSTEM
    return Change(of=one.reservation, to=status, reason=reason, changed_by=changed_by, headers=one.answer.headers)


def _refunded(settled: Sequence[_Answered]) -> Sequence[Event]:
    """Return the events that tell of what was paid back."""
    refund = saga.UNDOES[Step.PAYMENT]
    return [
        events.of_refund(one.reservation, one.booking, one.answer.headers)
        for one in settled
        if one.answer.event_type == refund and one.booking.payment is State.UNDONE
    ]
