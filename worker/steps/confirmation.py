"""The confirmation service: it is asked to confirm each hold, and told to let go of those that lapsed."""

from collections.abc import Collection, Sequence
from threading import Event
from uuid import UUID

from sqlalchemy.orm import Session, sessionmaker

from domain.fulfilment import confirmation
from domain.outbox import Delivered, Obsolete, Outcome, Refused, Rejected, Row, Settlement
from domain.outbox.routes import RESERVATION_CONFIRM, Route
from domain.runtime.settings import refuse_to_start
from worker.formats.envelope import trace, wrap
from worker.http.client import Http
from worker.relay.ordered_calls import OrderedCalls


class Confirmation:
    """A step. 2xx confirms, 4xx cancels and gives the stock back, anything else is tried again."""

    def __init__(self, route: Route, db: sessionmaker[Session], stopping: Event, *, timeout_seconds: float) -> None:
        self._db = db
        try:
            self._http = Http(route.url, timeout_seconds=timeout_seconds, connections=route.concurrency)
        except ValueError as error:
            refuse_to_start(f"CONFIRMATION_URL: it can't be used: {error}.")
        self._calls = OrderedCalls(route.concurrency, stopping)

    def deliver(self, rows: Sequence[Row]) -> Sequence[Outcome]:
        asked = [row.aggregate_id for row in rows if row.type == RESERVATION_CONFIRM]
        with self._db.begin() as session:
            held = confirmation.still_held(session, asked)
        return self._calls.deliver(rows, lambda row: self._call(row, held))

    def _call(self, row: Row, held: Collection[UUID]) -> Outcome:
        if row.type == RESERVATION_CONFIRM and row.aggregate_id not in held:
            return Obsolete()  # settling it tells the service to let go
        outcome = self._http.post(wrap(row), trace(row) | {"Idempotency-Key": str(row.event_id)})
        if row.type == RESERVATION_CONFIRM and isinstance(outcome, Rejected):
            return Refused(outcome.error)
        return outcome

    def apply(self, session: Session, settlement: Settlement) -> None:
        """Change the reservations that were answered for, and compensate for those that never will be."""
        asked = [(row, outcome) for row, outcome in settlement.processed if row.type == RESERVATION_CONFIRM]
        dead = [change for change in settlement.dead if change.row.type == RESERVATION_CONFIRM]
        confirmation.answer(
            session,
            confirmed=[row.aggregate_id for row, outcome in asked if isinstance(outcome, Delivered | Obsolete)],
            refused={row.aggregate_id: outcome.reason for row, outcome in asked if isinstance(outcome, Refused)},
            given_up={change.row.aggregate_id: change.error or "" for change in dead},
        )

    def close(self) -> None:
        self._calls.close()
        self._http.close()
