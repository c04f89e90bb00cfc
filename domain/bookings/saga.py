"""The saga of a booking: which step comes next, and what is undone when the booking ends. Pure.

Each step is an event for an outside service, and is asked for when those before it are answered. When a booking is
cancelled, rejected or expires, what its steps have done is undone, the last one first; a step that is being asked for
at that time is undone when its answer has come.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from domain.bookings.table import Booking, State
from domain.outbox import Routes


class Step(StrEnum):
    """What is done for a booking, in this order. The states of a booking have these names."""

    INVENTORY = "inventory"
    PRICING = "pricing"
    PAYMENT = "payment"
    CONFIRMATION = "confirmation"


#: The events that ask for a step.
ASKS: Mapping[Step, str] = {
    Step.INVENTORY: "inventory_hold",
    Step.PRICING: "price_quote",
    Step.PAYMENT: "payment_intent",
    Step.CONFIRMATION: "reservation_confirm",
}

#: The events that ask to undo a step. A quote leaves nothing to undo, and confirmations have rules of their own.
UNDOES: Mapping[Step, str] = {Step.PAYMENT: "payment_refund", Step.INVENTORY: "inventory_release"}

#: The steps that depend on the time and the party of a booking.
OF_TERMS = (Step.INVENTORY, Step.PRICING, Step.PAYMENT)

#: By the type of an event: the step that it asks for or, in the second one, undoes.
ASKED_BY = {event: step for step, event in ASKS.items()}
UNDONE_BY = {event: step for step, event in UNDOES.items()}


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask for this step."""

    step: Step


@dataclass(frozen=True, slots=True)
class Undo:
    """Ask to undo this step."""

    step: Step


@dataclass(frozen=True, slots=True)
class Confirm:
    """All steps are done: the booking is confirmed."""


Next = Ask | Undo | Confirm


def wanted_steps(routes: Routes) -> Sequence[Step]:
    """Return the steps for which there is a service."""
    return [step for step, event in ASKS.items() if routes.wanting(event)]


def forward(booking: Booking, wanted: Collection[Step]) -> Ask | Confirm | None:
    """Return what comes next for a booking that is neither cancelled, rejected nor expired.

    None: an answer has to come first, or nothing is left. Without any step nobody but people confirms it.
    """
    for step in Step:
        state = booking.state_of(step)
        if state is State.ASKED:
            return None
        is_left = state is State.AGAIN or (state is None and not (step is Step.PAYMENT and _is_free(booking)))
        if is_left and step in wanted:
            return Ask(step)
    return Confirm() if any(booking.state_of(step) for step in Step) else None


def back(booking: Booking) -> Undo | None:
    """Return what is to be undone next of a booking that is over. None: an answer has to come first, or nothing is."""
    for step in UNDOES:
        match booking.state_of(step):
            case State.ASKED | State.UNDOING:
                return None
            case State.DONE | State.AGAIN | State.UNKNOWN:
                return Undo(step)
    return None


def asked(booking: Booking) -> Collection[Step]:
    """Return the step that is being asked for, if there is one."""
    return [step for step in Step if booking.state_of(step) is State.ASKED]


def after(booking: Booking, found: Next | None) -> Booking:
    """Return a booking as it is when what is next has been asked for."""
    match found:
        case Ask(step):
            return booking.with_state(step, State.ASKED)
        case Undo(step):
            return booking.with_state(step, State.UNDOING)
        case _:
            return booking


def renewed(booking: Booking) -> Booking:
    """Return a booking whose time or party was changed: every service is asked again, one after the other."""
    for step in OF_TERMS:
        if booking.state_of(step) in (State.DONE, State.REFUSED, State.UNKNOWN):
            booking = booking.with_state(step, State.AGAIN)
    return booking


def is_agreed(booking: Booking) -> bool:
    """Return whether no service is to be asked about a booking any more, at this time."""
    return not any(booking.state_of(step) in (State.ASKED, State.AGAIN) for step in OF_TERMS)


def _is_free(booking: Booking) -> bool:
    return booking.price is not None and booking.price.total == 0
