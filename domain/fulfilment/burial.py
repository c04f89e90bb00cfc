"""Burying pending events, with what that does to reservations: nobody waits for an answer that never comes."""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from domain.access.audit import AuditEntry
from domain.fulfilment import confirmation, saga
from domain.outbox import Routes
from domain.outbox.operations import burial
from domain.outbox.operations.burial import PendingRow
from domain.outbox.operations.selection import Selection
from domain.reservations.events import RESERVATION_CONFIRM
from domain.runtime.database import now


def bury(session: Session, selection: Selection, entry: AuditEntry, routes: Routes) -> Sequence[PendingRow]:
    """Make the pending rows of a selection dead letters. Return them, in order of id.

    A hold whose confirmation is buried is cancelled, as after the last attempt to ask the service. If it may be asked
    about at this moment, the release waits until that call has ended. So it is with the steps of a booking.
    """
    buried = burial.bury(session, selection, entry)
    asked = [row for row in buried if row.type == RESERVATION_CONFIRM]
    confirmation.answer(
        session,
        confirmed=(),
        declined=(),
        given_up=[row.aggregate_id for row in asked],
        headers={row.aggregate_id: confirmation.cause(row.headers) for row in asked},
        routes=routes,
    )
    steps = [row for row in buried if row.type in saga.STEP_EVENTS]
    given_up = [
        saga.Answer(
            reservation_id=row.aggregate_id,
            event_type=row.type,
            result=saga.Result.GIVEN_UP,
            headers=confirmation.cause(row.headers),
        )
        for row in steps
    ]
    saga.settle(session, given_up, routes, now(session))
    burial.let_calls_end(session, [*asked, *steps])
    return buried
