"""The invariants of bookings: what outside services did for them agrees with what they are."""

from sqlalchemy import ColumnElement, CompoundSelect, Select, String, and_, cast, literal, or_, select, union_all

from domain.bookings import State, bookings
from domain.bookings.saga import ASKS, UNDOES, Step
from domain.invariants.invariant import Invariant
from domain.outbox.table import outbox, pending
from domain.reservations.lifecycle import FREEING
from domain.reservations.table import reservations

_is_over = reservations.c.status.in_(sorted(FREEING))


def _is_left_over() -> CompoundSelect[str]:
    """What was done for bookings that are over, and is not being undone."""
    return union_all(
        *(
            _named(step.value).where(_is_over, bookings.c[step].in_([State.DONE.value, State.UNKNOWN.value]))
            for step in UNDOES
        )
    )


def _waits_for_nothing() -> CompoundSelect[str]:
    """The steps of bookings that are being asked for, or undone, without an event that does it."""
    asked = [(step, State.ASKED, event) for step, event in ASKS.items()]
    undone = [(step, State.UNDOING, event) for step, event in UNDOES.items()]
    return union_all(
        *(
            _named(event).where(bookings.c[step] == state.value, ~_has_row(event, pending), _still_waits(step))
            for step, state, event in (*asked, *undone)
        )
    )


def _still_waits(step: Step) -> ColumnElement[bool]:
    """A confirmation leaves its state as it is: it is over when the booking is no longer PENDING."""
    return or_(literal(step is not Step.CONFIRMATION), reservations.c.status == literal("PENDING"))


def _not_undone() -> CompoundSelect[str]:
    """What a service never agreed to undo, as long as somebody has not discarded the dead letter."""
    is_dead = and_(outbox.c.dead_at.is_not(None), outbox.c.discarded_at.is_(None))
    return union_all(
        *(
            _named(event).where(bookings.c[step] == State.NOT_UNDONE.value, _has_row(event, is_dead))
            for step, event in UNDOES.items()
        )
    )


def _has_row(event: str, state: ColumnElement[bool]) -> ColumnElement[bool]:
    row = select(outbox.c.id).where(outbox.c.aggregate_id == bookings.c.reservation_id, outbox.c.type == event, state)
    return row.correlate(bookings).exists()


def _named(what: str) -> Select[str]:
    named = literal(f"{what} of ") + reservations.c.booking_reference + " " + cast(reservations.c.id, String)
    return select(named).join_from(bookings, reservations)


INVARIANTS = (
    Invariant(
        "nothing is left outside of a booking that is over",
        _is_left_over(),
        "Something is held or paid outside for a booking that is cancelled, rejected or expired, and nobody undoes it."
        " Undo it at the service by hand, and report the error.",
        misses="What a service has done and never said, and never will: its own books show that.",
    ),
    Invariant(
        "every step of a booking that is waited for has an event in the outbox",
        _waits_for_nothing(),
        "Nobody asks the service any more, so the booking waits until it expires. Cancel it, and make it anew.",
        misses="Events of a service that nobody delivers to: bin/outbox status shows its backlog.",
    ),
    Invariant(
        "every payment and every hold outside that was to be undone is undone",
        _not_undone(),
        "A service never agreed to give a payment back, or to release what it holds: bin/dead-letters shows what it"
        " answered. Replay the dead letter when it will agree; or settle it with the service by hand, and discard it.",
        misses="What was settled by hand in another way than the discarded dead letter says.",
    ),
)
