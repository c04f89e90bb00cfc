"""Reserving: many requests at once, under the locks of their items."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy import Text, select, true
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from domain import idempotency
from domain.calendars import table as calendars
from domain.idempotency import Answered, Key, StoredAnswer
from domain.outbox import Routes
from domain.reservations import free, table
from domain.reservations.creation import Made, make, write_queries
from domain.reservations.decisions import Accepted, Decision, Deferred, Duplicate, Reference, Reserve, decide
from domain.reservations.shortages import THOROUGH, Effort, relieve
from domain.reservations.table import reservations
from domain.runtime.database import records
from domain.runtime.database_errors import constraint_of
from domain.runtime.encoding import encode
from domain.runtime.errors import Refusal
from domain.runtime.pipeline import Query, execute


class KeyRace(Exception):
    """Raised when keys or outside references raced with requests for other items.

    The same is raised when time of a calendar was taken by somebody who has not locked the calendar, and when a booking
    was given a reference that another one has. Roll back, and decide the requests at these places in another set.
    """

    def __init__(self, places: Collection[int]) -> None:
        super().__init__(f"keys, references or time of {len(places)} requests were taken by another transaction")
        self.places = places


def reserve(
    session: Session, requests: Sequence[Reserve], routes: Routes, *, effort: Effort = THOROUGH
) -> Sequence[Answered | Refusal | Deferred]:
    """Make the reservations for which there is enough of every item, in order of arrival, and answer each request.

    A refusal makes no reservation, but overdue holds of its items may be expired. It waits for no lock of an item.
    Raises KeyRace.

    There are two round trips. The first locks the items, and looks up the keys and the outside references. The second
    inserts the reservations with their history, their further lines and their events, takes the units, and stores the
    answers. If units are lacking, overdue holds are counted and expired in between, and the items are read again.
    """
    keys = {request.key for request in requests if request.key}
    references = {(one.client_id, one.external_reference) for one in requests if one.external_reference}
    # After the locks: a duplicate asks for the same item, so its answer is committed and seen by now.
    then = idempotency.lookup_query(keys), _references_query(references)
    found, locked = free.lock(session, requests, then, busy_periods=effort.busy_periods)
    answered, known = idempotency.read_answers(locked.then[0]), {tuple(row) for row in locked.then[1]}
    decisions = decide(requests, found, answered, references=known, moment=locked.at)
    relieved = relieve(session, requests, decisions, found, routes, effort)
    if relieved:
        found, overdue = relieved
        decisions = decide(requests, found, answered, overdue, known, locked.at)
    answers = _write(session, requests, decisions, locked.at, routes)
    return [_answer(place, decisions, answers) for place in range(len(requests))]


def _references_query(references: Collection[Reference]) -> Query:
    """Return the query for those of these outside references that reservations have."""
    asked = [{"client_id": client, "external_reference": reference} for client, reference in references]
    return Query(_KNOWN, {"asked": encode(asked)})


_asked = records("asked", client_id=Text, external_reference=Text)
# The limit makes PostgreSQL look each reference up by its index, as it does for idempotency keys.
_one = (
    select(reservations.c.client_id, reservations.c.external_reference)
    .where(
        reservations.c.client_id == _asked.c.client_id,
        reservations.c.external_reference == _asked.c.external_reference,
    )
    .limit(1)
    .lateral("one")
)
_KNOWN = select(_one).select_from(_asked.join(_one, true()))


def _write(
    session: Session,
    requests: Sequence[Reserve],
    decisions: Sequence[Decision],
    moment: datetime | None,
    routes: Routes,
) -> Mapping[int, str]:
    """Write what was accepted and all that belongs to it. Return the answers by place. Raises KeyRace."""
    accepted = [(place, one.items) for place, one in enumerate(decisions) if isinstance(one, Accepted)]
    if not accepted:
        return {}
    assert moment is not None, "an item was locked"
    places = [place for place, _ in accepted]
    made = make([(requests[place], of) for place, of in accepted], moment, routes)
    answers: list[str] = []
    try:
        # The last query stores the answers, and its rows are the keys that were new.
        *_, rows = execute(session, _write_queries(session, made, routes, answers))
    except IntegrityError as error:
        raced = _raced(constraint_of(error), requests, places)
        if not raced:
            raise
        raise KeyRace(raced) from error
    stored = {Key(*row) for row in rows}
    raced = [place for place in places if (key := requests[place].key) and key not in stored]
    if raced:
        raise KeyRace(raced)
    return dict(zip(places, answers, strict=True))


def _raced(constraint: str | None, requests: Sequence[Reserve], places: Sequence[int]) -> Sequence[int]:
    """Return the places of the requests that may have broken this constraint, because others wrote meanwhile."""
    match constraint:
        case table.REFERENCE_IS_UNIQUE:
            return [place for place in places if requests[place].external_reference]
        case table.BOOKING_REFERENCE_IS_UNIQUE:
            return [place for place in places if requests[place].booking]
        case calendars.TIME_IS_EXCLUSIVE:
            return [place for place in places if requests[place].period]
        case _:
            return ()


def _write_queries(session: Session, made: Sequence[Made], routes: Routes, answers: list[str]) -> Iterator[Query]:
    """Yield the queries that write reservations and store their answers, which are added to `answers`.

    The answers are rendered while PostgreSQL executes the queries before.
    """
    yield from write_queries(session, made, routes)
    answers += [request.render(one) for request, one, _ in made]
    yield idempotency.store_query(
        [
            (request.key, StoredAnswer(request.payload_hash, answer), one.id)
            for (request, one, _), answer in zip(made, answers, strict=True)
            if request.key
        ]
    )


def _answer(place: int, decisions: Sequence[Decision], answers: Mapping[int, str]) -> Answered | Refusal | Deferred:
    match decisions[place]:
        case Accepted():
            return Answered(answers[place])
        case Duplicate(of):
            shared = _answer(of, decisions, answers)
            return replace(shared, replayed=True) if isinstance(shared, Answered) else shared
        case decided:
            return decided
