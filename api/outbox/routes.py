"""The outbox over HTTP, for operators: how destinations fare, dead letters, replay, and why something is not delivered.

Each change is written down with the client that X-Client-Id names, and why.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Request, Response, get, post
from litestar.params import Parameter
from sqlalchemy.orm import Session, sessionmaker

from api.http.decoding import Strict
from api.http.headers import client_of, hash_of, key_of
from api.http.responses import answered, problems
from api.outbox.schemas import (
    DeliveryView,
    DestinationList,
    DestinationState,
    DestinationView,
    GroupList,
    GroupView,
    LetterChange,
    LetterPage,
    LetterView,
    Order,
    Progress,
    Reason,
    ReplayOrder,
    Whys,
)
from api.reservations.schemas import NO_NUL
from domain.idempotency.stored_answers import stored_answers
from domain.outbox.operations import dead_letters, destinations, replay
from domain.outbox.operations.audit import Deed
from domain.outbox.operations.bulk_change import Batch, Changed
from domain.outbox.operations.explain import why
from domain.outbox.operations.selection import Among, Selection
from domain.outbox.operations.status import look

Db = sessionmaker[Session]
Asked = Request[Any, Any, Any]
Name = Annotated[str, Parameter(pattern="^[a-z][a-z0-9_-]{0,63}$", description="The name of a destination")]
Wanted = Annotated[str | None, Parameter(min_length=1, max_length=64, pattern=NO_NUL)]
EventType = Annotated[str | None, Parameter(min_length=1, max_length=50, pattern=NO_NUL)]
GroupName = Annotated[str | None, Parameter(pattern="^[0-9a-f]{8}$")]
Limit = Annotated[int, Parameter(ge=1, le=1_000, description="How many at the most")]
Cursor = Annotated[int, Parameter(ge=0, le=2**63 - 1)]


@get("/outbox/destinations", sync_to_thread=True, responses=problems(), tags=["outbox"])
def list_destinations(db: Db) -> DestinationList:
    """List destinations and how they fare."""
    with db.begin() as session:
        routed = _routed(session)
        return DestinationList([DestinationView.standing(one, routed) for one in look(session)])


def _routed(session: Session) -> Sequence[str]:
    return [route.name for route in session.info["routes"].destinations]


@post(
    "/outbox/destinations/{name:str}/pause",
    dto=Strict[Reason],
    sync_to_thread=True,
    status_code=200,
    responses=problems(404, 409, 413, 415),
    tags=["outbox"],
)
def pause_destination(request: Asked, name: Name, data: Reason, db: Db) -> Response[DestinationState]:
    """Send nothing more to a destination, until it is resumed. What is recorded for it waits."""
    return _change(request, name, data, db, "pause", destinations.pause)


@post(
    "/outbox/destinations/{name:str}/resume",
    dto=Strict[Reason],
    sync_to_thread=True,
    status_code=200,
    responses=problems(404, 409, 413, 415),
    tags=["outbox"],
)
def resume_destination(request: Asked, name: Name, data: Reason, db: Db) -> Response[DestinationState]:
    """Send again to a destination that is paused."""
    return _change(request, name, data, db, "resume", destinations.resume)


@post(
    "/outbox/destinations/{name:str}/probe",
    dto=Strict[Reason],
    sync_to_thread=True,
    status_code=200,
    responses=problems(404, 409, 413, 415),
    tags=["outbox"],
)
def probe_destination(request: Asked, name: Name, data: Reason, db: Db) -> Response[DestinationState]:
    """Try a destination that is down at once, instead of when its time comes."""
    return _change(request, name, data, db, "probe", destinations.probe)


def _change(
    request: Asked, name: str, data: Reason, db: Db, action: str, verb: Callable[[Session, str, Deed], bool]
) -> Response[DestinationState]:
    key, deed = key_of(request, f"outbox.{action}"), Deed(who=client_of(request), why=data.why)

    def change() -> DestinationState:
        verb(session, name, deed)
        # Nothing is counted: a backlog is no reason for a pause to come late, or not at all.
        return DestinationState.of(destinations.lock(session, name), _routed(session))

    with db.begin() as session:
        outcome = stored_answers.once(session, key, hash_of(name, data), change, _rendered)
    return answered(outcome, status=200, at="/outbox/destinations")


def _rendered(view: msgspec.Struct) -> str:
    return msgspec.json.encode(view).decode()


@get("/outbox/dead-letters/groups", sync_to_thread=True, responses=problems(), tags=["outbox"])
def group_dead_letters(
    db: Db,
    destination: Wanted = None,
    type: EventType = None,  # noqa: A002  # the name that clients know
) -> GroupList:
    """List dead letters in groups of one destination, one type and like errors."""
    wanted = Selection(among=Among.DEAD, destination=destination, type=type, everything=True)
    with db.begin() as session:
        return GroupList([GroupView.of(one) for one in dead_letters.grouped(session, wanted)])


@get("/outbox/dead-letters", sync_to_thread=True, responses=problems(), tags=["outbox"])
def list_dead_letters(
    db: Db,
    destination: Wanted = None,
    type: EventType = None,  # noqa: A002
    group: GroupName = None,
    limit: Limit = 100,
    cursor: Cursor = 0,
) -> LetterPage:
    """List dead letters in order of id, without their payloads."""
    wanted = Selection(among=Among.DEAD, destination=destination, type=type, group=group, everything=True)
    with db.begin() as session:
        found = dead_letters.find(session, wanted, after=cursor, limit=limit)
    return LetterPage([LetterView.of(one) for one in found], str(found[-1].id) if len(found) == limit else None)


@post(
    "/outbox/dead-letters/replay",
    dto=Strict[LetterChange],
    sync_to_thread=True,
    status_code=200,
    responses=problems(409, 413, 415),
    tags=["outbox"],
)
def replay_dead_letters(request: Asked, data: LetterChange, db: Db) -> Response[Progress]:
    """Send dead letters again: the same events, under the same ids, in their order."""
    return _batch(request, data, db, "replay", Among.DEAD, replay.send_again)


@post(
    "/outbox/dead-letters/discard",
    dto=Strict[LetterChange],
    sync_to_thread=True,
    status_code=200,
    responses=problems(409, 413, 415),
    tags=["outbox"],
)
def discard_dead_letters(request: Asked, data: LetterChange, db: Db) -> Response[Progress]:
    """Give dead letters up for good."""
    return _batch(request, data, db, "discard", Among.DEAD, dead_letters.discard)


@post(
    "/outbox/replay",
    dto=Strict[ReplayOrder],
    sync_to_thread=True,
    status_code=200,
    responses=problems(409, 413, 415),
    tags=["outbox"],
)
def replay_delivered(request: Asked, data: ReplayOrder, db: Db) -> Response[Progress]:
    """Send again what was delivered: the same events, under the same ids, marked as replayed, in their order."""
    return _batch(request, data, db, "replay", Among.DELIVERED, replay.send_again)


def _batch(
    request: Asked,
    data: Order,
    db: Db,
    action: str,
    among: Among,
    verb: Callable[[Session, Batch], Changed],
) -> Response[Progress]:
    key = key_of(request, f"outbox.{action}.{among}")
    selection = data.selection.means(among)
    deed = Deed(who=client_of(request), why=data.why)

    def change() -> Progress:
        asked = selection.as_of_now(session)
        if data.dry_run:
            # Only here: to count the whole selection at each step of a long replay would take its time.
            there = replay.count(session, asked)
            return _progress(asked, there.rows, None, answered_steps=there.answered_steps)
        batch = Batch(selection=asked, deed=deed, after=int(data.cursor), limit=data.limit)
        changed = verb(session, batch)
        return _progress(asked, changed.rows, changed.following.after if changed.following else None)

    with db.begin() as session:
        outcome = stored_answers.once(session, key, hash_of(data), change, _rendered)
    return answered(outcome, status=200, at="/outbox")


def _progress(selection: Selection, rows: int, after: int | None, answered_steps: int | None = None) -> Progress:
    assert selection.until is not None
    return Progress(
        rows=rows,
        dry_run=answered_steps is not None,
        answered_steps=answered_steps,
        until=selection.until,
        next_cursor=None if after is None else str(after),
    )


@get("/outbox/why/{subject_id:str}", sync_to_thread=True, responses=problems(404), tags=["outbox"])
def explain_delivery(
    subject_id: Annotated[UUID, Parameter(description="The id of an event, or of a reservation")], db: Db
) -> Whys:
    """Say where each delivery of an event or of a reservation stands, and why it is not delivered."""
    with db.begin() as session:
        return Whys([DeliveryView.of(one) for one in why(session, subject_id, _routed(session))])
