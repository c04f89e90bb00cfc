"""A service that takes a step of a booking: it is asked for the step, and asked to undo what it may have done."""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session, sessionmaker

from domain.bookings import saga as steps
from domain.fulfilment import saga
from domain.fulfilment.confirmation import cause
from domain.fulfilment.saga import Answer, Result
from domain.outbox import (
    Answered,
    Cause,
    Declined,
    Delivered,
    Obsolete,
    Outcome,
    Rejected,
    Route,
    Routes,
    Row,
    Settlement,
    Unreachable,
)
from domain.runtime.errors import ConfigurationError
from domain.runtime.settings import Settings
from worker.formats.envelope import trace, wrap
from worker.http.client import Http, Response, outcome_of
from worker.ordering.calling_threads import most
from worker.ordering.ordered_calls import OrderedCalls
from worker.ordering.pace import Pace

#: The longest name that a service may give to what it did, in characters.
LONGEST_NAME = 255

#: What PostgreSQL can't store: NUL, and halves of characters.
UNSTORABLE = re.compile("[\0\ud800-\udfff]")

#: The age of a row that is asked about without looking whether its booking is over. Most are that new.
NEW = timedelta(seconds=2)


class BadAnswer(Exception):
    """Raised when a service has answered yes, and the answer can't be used."""


class ServiceStep:
    """A step of bookings. The answer 2xx with JSON says what was done; a 4xx that concerns this booking refuses it.

    After any other answer the service is asked again, under the same `Idempotency-Key`. A subclass reads the answers.
    """

    def __init__(self, route: Route, settings: Settings, db: sessionmaker[Session], routes: Routes, pace: Pace) -> None:
        self._db = db
        self._routes = routes
        timeout_seconds = settings.step_timeout_seconds
        try:
            self._http = Http(
                route.url,
                timeout_seconds=timeout_seconds,
                connections=most(route.concurrency),
                reads_answers=True,
            )
        except ValueError as error:
            raise ConfigurationError(f"{route.name.upper()}_URL: it can't be used: {error}.") from error
        self._calls = OrderedCalls(route.concurrency, pace, timeout_seconds=timeout_seconds)

    def facts_of(self, answer: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the fields of a booking that an answer has. Raises BadAnswer, Invalid."""
        raise NotImplementedError

    def refuses(self, response: Response) -> bool:
        """Return whether a response refuses the step, for this booking and for good."""
        return isinstance(outcome_of(response), Rejected)

    def deliver(self, rows: Sequence[Row]) -> Sequence[Outcome]:
        old = [row.aggregate_id for row in rows if row.type in steps.ASKED_BY and not _is_new(row)]
        over = self._over(old) if old else ()
        return self._calls.deliver(rows, lambda row: self._call(row, over))

    def _over(self, ids: Sequence[UUID]) -> Collection[UUID]:
        with self._db.begin() as session:
            return set(ids) - set(saga.still_kept(session, ids))

    def _call(self, row: Row, over: Collection[UUID]) -> Outcome:
        if row.type not in steps.ASKED_BY:
            return self._post(row, self._undone)
        # An earlier call may have reached the service, so `apply` has it undone.
        return Obsolete() if row.aggregate_id in over else self.ask(row)

    def ask(self, row: Row) -> Outcome:
        """Ask for the step once."""
        return self._post(row, self._done)

    def _post(self, row: Row, interpret: Any) -> Outcome:
        return self._http.post(wrap(row), trace(row) | {"Idempotency-Key": str(row.event_id)}, interpret)

    def _done(self, response: Response) -> Outcome:
        if self.refuses(response):
            return Declined(response.summary())
        outcome = outcome_of(response)
        if not isinstance(outcome, Delivered):
            return outcome
        try:
            return Answered(self.facts_of(_members(response.body)))
        except BadAnswer as error:
            return Unreachable(f"the answer can't be used: {error}: {response.summary()}", cause=Cause.ERROR)

    def _undone(self, response: Response) -> Outcome:
        """Return what the answer to undoing means. A service that does not know the booking has nothing to undo."""
        return Declined(response.summary()) if response.status in {404, 410} else outcome_of(response)

    def apply(self, session: Session, settlement: Settlement) -> None:
        """Write what the answers do to bookings, and ask for what comes next."""
        processed = [_answer(row, *_result(outcome)) for row, outcome in settlement.processed]
        dead = [_answer(update.row, Result.GIVEN_UP) for update in settlement.dead]
        saga.settle(session, [*processed, *dead], self._routes, settlement.at)

    def close(self) -> None:
        self._calls.close()
        self._http.close()


def _is_new(row: Row) -> bool:
    """Return whether a row was recorded just now: what it asks for is hardly ever over, and is undone if it is."""
    return not _was_sent(row) and row.fetched_at - row.created_at < NEW


def _was_sent(row: Row) -> bool:
    """Return whether an earlier call may have reached the service."""
    return bool(row.attempts or row.unreachable_at or "replayed" in row.headers)


def name_of(answer: Mapping[str, Any], field: str) -> str:
    """Return the name that a service has given to what it did. Raises BadAnswer."""
    name = answer.get(field)
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME or UNSTORABLE.search(name):
        raise BadAnswer(f"{field} must be text of 1 to {LONGEST_NAME} characters")
    return name


def _members(body: str) -> Mapping[str, Any]:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        raise BadAnswer("it is no JSON, or was cut off") from None
    if not isinstance(answer, dict):
        raise BadAnswer("it is no JSON object")
    return answer


def _result(outcome: Outcome) -> tuple[Result, Mapping[str, Any]]:
    match outcome:
        case Answered(facts):
            return Result.DONE, facts
        case Declined():
            return Result.REFUSED, {}
        case Obsolete():
            return Result.TOO_LATE, {}
        case _:
            return Result.DONE, {}


def _answer(row: Row, result: Result, facts: Mapping[str, Any] | None = None) -> Answer:
    return Answer(
        reservation_id=row.aggregate_id,
        event_type=row.type,
        result=result,
        version=json.loads(row.payload)["version"],
        was_tried=_was_sent(row),
        facts=facts or {},
        headers=cause(row.headers),
    )
