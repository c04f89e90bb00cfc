"""The confirmation service: it confirms holds, and releases those that it may have confirmed in vain."""

from collections.abc import Collection, Sequence
from uuid import UUID

from sqlalchemy.orm import Session, sessionmaker

from domain.fulfilment import confirmation
from domain.outbox import DELIVERED, Declined, Delivered, Obsolete, Outcome, Rejected, Route, Routes, Row, Settlement
from domain.reservations.events import RESERVATION_CONFIRM
from domain.runtime.errors import ConfigurationError
from domain.runtime.settings import Settings
from worker.formats.envelope import trace, wrap
from worker.http.client import Http, Response, outcome_of
from worker.ordering.calling_threads import most
from worker.ordering.ordered_calls import OrderedCalls
from worker.ordering.pace import Pace


class ConfirmationStep:
    """A step. The answer 2xx confirms a hold. A 4xx that concerns this hold rejects it and gives the stock back. After
    any other answer the service is asked again.
    """

    def __init__(self, route: Route, settings: Settings, db: sessionmaker[Session], routes: Routes, pace: Pace) -> None:
        self._db = db
        self._routes = routes
        timeout_seconds = settings.confirmation_timeout_seconds
        try:
            self._http = Http(route.url, timeout_seconds=timeout_seconds, connections=most(route.concurrency))
        except ValueError as error:
            raise ConfigurationError(f"CONFIRMATION_URL: it can't be used: {error}.") from error
        self._calls = OrderedCalls(route.concurrency, pace, timeout_seconds=timeout_seconds)

    def deliver(self, rows: Sequence[Row]) -> Sequence[Outcome]:
        asked = [row.aggregate_id for row in rows if row.type == RESERVATION_CONFIRM]
        with self._db.begin() as session:
            held = confirmation.still_held(session, asked)
        return self._calls.deliver(rows, lambda row: self._call(row, held))

    def _call(self, row: Row, held: Collection[UUID]) -> Outcome:
        if row.type == RESERVATION_CONFIRM and row.aggregate_id not in held:
            # An earlier call may have reached the service, so `apply` has the hold released unless it was confirmed.
            return Obsolete()
        headers = trace(row) | {"Idempotency-Key": str(row.event_id)}
        return self._http.post(wrap(row), headers, _confirmed if row.type == RESERVATION_CONFIRM else _released)

    def apply(self, session: Session, settlement: Settlement) -> None:
        """Change the reservations that the service has answered for, and cancel those that it never will."""
        asked = [(row, outcome) for row, outcome in settlement.processed if row.type == RESERVATION_CONFIRM]
        dead = [update.row for update in settlement.dead if update.row.type == RESERVATION_CONFIRM]
        confirmation.answer(
            session,
            confirmed=[row.aggregate_id for row, outcome in asked if isinstance(outcome, Delivered)],
            declined=[row.aggregate_id for row, outcome in asked if isinstance(outcome, Declined)],
            given_up=[row.aggregate_id for row in dead],
            unasked=[row.aggregate_id for row, outcome in asked if isinstance(outcome, Obsolete)],
            headers={row.aggregate_id: confirmation.cause(row.headers) for row in (*(row for row, _ in asked), *dead)},
            routes=self._routes,
        )

    def close(self) -> None:
        self._calls.close()
        self._http.close()


def _confirmed(response: Response) -> Outcome:
    outcome = outcome_of(response)
    return Declined(outcome.error) if isinstance(outcome, Rejected) else outcome


def _released(response: Response) -> Outcome:
    """Return what the answer to a release means. A service that does not know the hold has nothing to release."""
    return DELIVERED if response.status in {404, 410} else outcome_of(response)
