"""The outbox over HTTP, for operators: the status of each destination, dead letters, replay, and explanations.

Each change is recorded in the audit, with the client that X-Client-Id names and the reason.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Request, Response, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import Parameter
from sqlalchemy.orm import Session, sessionmaker

from api.http.decoding import NO_NUL, Strict
from api.http.headers import client_of, hash_of, key_of
from api.http.responses import answered, problems
from api.outbox.schemas import (
    ActionRequest,
    BulkRequest,
    DeadLetterRequest,
    DeliveryList,
    DeliveryView,
    DestinationList,
    DestinationStateView,
    DestinationView,
    GroupList,
    GroupView,
    LetterPage,
    LetterView,
    Progress,
    ReplayRequest,
)
from domain import idempotency
from domain.outbox import Routes
from domain.outbox.operations import dead_letters, destinations, replay
from domain.outbox.operations.audit import AuditEntry
from domain.outbox.operations.bulk_change import Batch, Changed
from domain.outbox.operations.explain import explain
from domain.outbox.operations.selection import Among, Selection
from domain.outbox.operations.status import read_statuses

Db = sessionmaker[Session]
AnyRequest = Request[Any, Any, Any]
Name = Annotated[str, Parameter(pattern="^[a-z][a-z0-9_-]{0,63}$", description="The name of a destination")]
OneDestination = Annotated[str | None, Parameter(min_length=1, max_length=64, pattern=NO_NUL)]
EventType = Annotated[str | None, Parameter(min_length=1, max_length=50, pattern=NO_NUL)]
GroupName = Annotated[str | None, Parameter(pattern="^[0-9a-f]{8}$")]
Limit = Annotated[int, Parameter(ge=1, le=1_000, description="Maximum number of dead letters")]
Cursor = Annotated[int, Parameter(ge=0, le=2**63 - 1)]


@get("/outbox/destinations", sync_to_thread=True, responses=problems(), tags=["outbox"])
def list_destinations(db: Db, routes: Routes) -> DestinationList:
    """List the status of each destination."""
    with db.begin() as session:
        return DestinationList([DestinationView.of_status(one, routes.names) for one in read_statuses(session)])


@post(
    "/outbox/destinations/{name:str}/pause",
    dto=Strict[ActionRequest],
    sync_to_thread=True,
    status_code=200,
    responses=problems(404, 409, 413, 415),
    tags=["outbox"],
)
def pause_destination(
    request: AnyRequest, name: Name, data: ActionRequest, db: Db, routes: Routes
) -> Response[DestinationStateView]:
    """Send nothing to a destination until it is resumed. Its rows stay pending."""
    return _change(request, name, data, db, routes, "pause", destinations.pause)


@post(
    "/outbox/destinations/{name:str}/resume",
    dto=Strict[ActionRequest],
    sync_to_thread=True,
    status_code=200,
    responses=problems(404, 409, 413, 415),
    tags=["outbox"],
)
def resume_destination(
    request: AnyRequest, name: Name, data: ActionRequest, db: Db, routes: Routes
) -> Response[DestinationStateView]:
    """Send again to a destination that is paused."""
    return _change(request, name, data, db, routes, "resume", destinations.resume)


@post(
    "/outbox/destinations/{name:str}/probe",
    dto=Strict[ActionRequest],
    sync_to_thread=True,
    status_code=200,
    responses=problems(404, 409, 413, 415),
    tags=["outbox"],
)
def probe_destination(
    request: AnyRequest, name: Name, data: ActionRequest, db: Db, routes: Routes
) -> Response[DestinationStateView]:
    """Probe a destination that is down now, instead of at the time of its next probe."""
    return _change(request, name, data, db, routes, "probe", destinations.probe)


def _change(
    request: AnyRequest,
    name: str,
    data: ActionRequest,
    db: Db,
    routes: Routes,
    action: str,
    verb: Callable[[Session, str, AuditEntry], bool],
) -> Response[DestinationStateView]:
    key, entry = key_of(request, f"outbox.{action}"), AuditEntry(who=client_of(request), why=data.why)

    def change() -> DestinationStateView:
        verb(session, name, entry)
        # No rows are counted: a backlog, which takes long to count, must not delay a pause or make it fail.
        return DestinationStateView.of(destinations.lock(session, name), routes.names)

    with db.begin() as session:
        outcome = idempotency.once(session, key, hash_of(name, data), change, _rendered)
    return answered(outcome, status=200, at="/outbox/destinations")


def _rendered(view: msgspec.Struct) -> str:
    return msgspec.json.encode(view).decode()


@get("/outbox/dead-letters/groups", sync_to_thread=True, responses=problems(), tags=["outbox"])
def group_dead_letters(
    db: Db,
    destination: OneDestination = None,
    type: EventType = None,  # noqa: A002  # the name that clients know
) -> GroupList:
    """List dead letters in groups of one destination, one type and similar errors."""
    wanted = Selection(among=Among.DEAD, destination=destination, type=type, everything=True)
    with db.begin() as session:
        return GroupList([GroupView.of(one) for one in dead_letters.grouped(session, wanted)])


@get("/outbox/dead-letters", sync_to_thread=True, responses=problems(), tags=["outbox"])
def list_dead_letters(
    db: Db,
    destination: OneDestination = None,
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
    dto=Strict[DeadLetterRequest],
    sync_to_thread=True,
    status_code=200,
    responses=problems(409, 413, 415),
    tags=["outbox"],
)
def replay_dead_letters(request: AnyRequest, data: DeadLetterRequest, db: Db, routes: Routes) -> Response[Progress]:
    """Send dead letters again: the same events with the same ids, in their order."""
    return _batch(request, data, db, routes, "replay", Among.DEAD, _replaying(routes))


@post(
    "/outbox/dead-letters/discard",
    dto=Strict[DeadLetterRequest],
    sync_to_thread=True,
    status_code=200,
    responses=problems(409, 413, 415),
    tags=["outbox"],
)
def discard_dead_letters(request: AnyRequest, data: DeadLetterRequest, db: Db, routes: Routes) -> Response[Progress]:
    """Discard dead letters: they can't be replayed any more."""
    return _batch(request, data, db, routes, "discard", Among.DEAD, dead_letters.discard)


@post(
    "/outbox/replay",
    dto=Strict[ReplayRequest],
    sync_to_thread=True,
    status_code=200,
    responses=problems(409, 413, 415),
    tags=["outbox"],
)
def replay_delivered(request: AnyRequest, data: ReplayRequest, db: Db, routes: Routes) -> Response[Progress]:
    """Send delivered events again: the same events with the same ids, marked as replayed, in their order."""
    return _batch(request, data, db, routes, "replay", Among.DELIVERED, _replaying(routes))


Verb = Callable[[Session, Batch], Changed]


def _replaying(routes: Routes) -> Verb:
    return partial(replay.replay, step_types=routes.step_types)


def _batch(
    request: AnyRequest, data: BulkRequest, db: Db, routes: Routes, action: str, among: Among, verb: Verb
) -> Response[Progress]:
    key = key_of(request, f"outbox.{action}.{among}")
    selection = data.selection.to_selection(among)
    entry = AuditEntry(who=client_of(request), why=data.why)

    def change() -> Progress:
        selected = selection.as_of_now(session)
        if data.dry_run:
            # The whole selection is counted by a dry run only: at each step of a long replay it would take too long.
            counted = replay.count(session, selected, routes.step_types)
            return _progress(selected, counted.rows, None, skipped_steps=counted.skipped_steps)
        changed = verb(session, Batch(selection=selected, entry=entry, after=int(data.cursor), limit=data.limit))
        return _progress(selected, changed.rows, changed.following.after if changed.following else None)

    with db.begin() as session:
        outcome = idempotency.once(session, key, hash_of(data), change, _rendered)
    return answered(outcome, status=200, at="/outbox")


def _progress(selection: Selection, rows: int, after: int | None, skipped_steps: int | None = None) -> Progress:
    assert selection.until is not None
    return Progress(
        rows=rows,
        dry_run=skipped_steps is not None,
        skipped_steps=skipped_steps,
        until=selection.until,
        next_cursor=None if after is None else str(after),
    )


@get("/outbox/why/{subject_id:str}", sync_to_thread=True, responses=problems(404), tags=["outbox"])
def explain_delivery(
    subject_id: Annotated[UUID, Parameter(description="The id of an event or of a reservation")],
    db: Db,
    routes: Routes,
) -> DeliveryList:
    """Explain each delivery of an event or of a reservation: its state, and why it is not delivered."""
    with db.begin() as session:
        return DeliveryList([DeliveryView.of(one) for one in explain(session, subject_id, routes.names)])


ROUTES: Sequence[HTTPRouteHandler] = (
    list_destinations,
    pause_destination,
    resume_destination,
    probe_destination,
    list_dead_letters,
    group_dead_letters,
    replay_dead_letters,
    discard_dead_letters,
    replay_delivered,
    explain_delivery,
)
