"""Burying pending events, with what that does to reservations: nobody waits for an answer that never comes."""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from domain.fulfilment import confirmation
from domain.outbox import Routes
from domain.outbox.operations import burial
from domain.outbox.operations.audit import AuditEntry
from domain.outbox.operations.burial import PendingRow
from domain.outbox.operations.selection import Selection
from domain.reservations.events import RESERVATION_CONFIRM


def bury(session: Session, selection: Selection, entry: AuditEntry, routes: Routes) -> Sequence[PendingRow]:
    """Make the pending rows of a selection dead letters. Return them, in order of id.

    A hold whose confirmation is buried is cancelled, as after the last attempt to ask the service. If it may be asked
    about at this moment, the release waits until that call has ended.
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
    burial.let_calls_end(session, asked)
    return buried
