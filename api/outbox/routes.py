"""The outbox over HTTP, for operators: the status of each destination, dead letters, replay, and explanations.

Each change is recorded in the audit, with its sender and the reason.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Request, Response, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import Parameter
from sqlalchemy.orm import Session

from api.bulkheads import ClientBulkhead
from api.http.decoding import END, NO_NUL, Strict
from api.http.headers import key_of, principal_of
from api.http.payloads import hash_of
from api.http.responses import answered, changing, reading
from api.outbox.schemas import (
    ActionRequest,
    BulkRequest,
    DeadLetterRequest,
    DeliveryList,
    DeliveryView,
    DestinationList,
    DestinationStatusView,
    DestinationView,
    GroupList,
    GroupView,
    LetterPage,
    LetterView,
    Progress,
    ReplayRequest,
)
from domain import idempotency
from domain.access.audit import AuditEntry
from domain.outbox import Routes
from domain.outbox.operations import dead_letters, destinations, replay
from domain.outbox.operations.bulk_change import Batch, Changed
from domain.outbox.operations.explain import explain
from domain.outbox.operations.selection import Among, Selection
from domain.outbox.operations.status import read_statuses
from domain.runtime.errors import NotInOutbox, UnknownDestination

AnyRequest = Request[Any, Any, Any]
Name = Annotated[str, Parameter(pattern=f"^[a-z][a-z0-9_-]{{0,63}}{END}", description="The name of a destination")]
OneDestination = Annotated[str | None, Parameter(min_length=1, max_length=64, pattern=NO_NUL)]
EventType = Annotated[str | None, Parameter(min_length=1, max_length=50, pattern=NO_NUL)]
GroupName = Annotated[str | None, Parameter(pattern=f"^[0-9a-f]{{8}}{END}")]
Limit = Annotated[int, Parameter(ge=1, le=1_000, description="Maximum number of dead letters")]
Cursor = Annotated[int, Parameter(ge=0, le=2**63 - 1)]


@get("/outbox/destinations", responses=reading(), tags=["outbox"], operation="outbox.read")
async def list_destinations(operations: ClientBulkhead, routes: Routes) -> DestinationList:
    """List the status of each destination."""
    statuses = await operations.run(read_statuses)
    return DestinationList([DestinationView.of_status(one, routes.names) for one in statuses])


@post(
    "/outbox/destinations/{name:str}/pause",
    dto=Strict[ActionRequest],
    status_code=200,
    responses=changing(UnknownDestination),
    tags=["outbox"],
    operation="outbox.pause",
)
async def pause_destination(
    request: AnyRequest, name: Name, data: ActionRequest, operations: ClientBulkhead, routes: Routes
) -> Response[DestinationStatusView]:
    """Send nothing to a destination until it is resumed. Its rows stay pending."""
    return await _change(request, name, data, operations, routes, "pause", destinations.pause)


@post(
    "/outbox/destinations/{name:str}/resume",
    dto=Strict[ActionRequest],
    status_code=200,
    responses=changing(UnknownDestination),
    tags=["outbox"],
    operation="outbox.resume",
)
async def resume_destination(
    request: AnyRequest, name: Name, data: ActionRequest, operations: ClientBulkhead, routes: Routes
) -> Response[DestinationStatusView]:
    """Send again to a destination that is paused."""
    return await _change(request, name, data, operations, routes, "resume", destinations.resume)


@post(
    "/outbox/destinations/{name:str}/probe",
    dto=Strict[ActionRequest],
    status_code=200,
    responses=changing(UnknownDestination),
    tags=["outbox"],
    operation="outbox.probe",
)
async def probe_destination(
    request: AnyRequest, name: Name, data: ActionRequest, operations: ClientBulkhead, routes: Routes
) -> Response[DestinationStatusView]:
    """Probe a destination that is down now, instead of at the time of its next probe."""
    return await _change(request, name, data, operations, routes, "probe", destinations.probe)


async def _change(
    request: AnyRequest,
    name: str,
    data: ActionRequest,
    operations: ClientBulkhead,
    routes: Routes,
    action: str,
    verb: Callable[[Session, str, AuditEntry], bool],
) -> Response[DestinationStatusView]:
    key = key_of(request.scope, f"outbox.{action}")
    entry = AuditEntry(who=principal_of(request.scope).name, why=data.why)

    def change(session: Session) -> DestinationStatusView:
        verb(session, name, entry)
        # No rows are counted: a backlog, which takes long to count, must not delay a pause or make it fail.
        return DestinationStatusView.of(destinations.lock(session, name), routes.names)

    payload_hash = hash_of(await request.body(), name) if key else ""
    outcome = await operations.run(lambda session: idempotency.once(session, key, payload_hash, change, _rendered))
    return answered(outcome, status=200, at="/outbox/destinations")


def _rendered(view: msgspec.Struct) -> str:
    return msgspec.json.encode(view).decode()


@get("/outbox/dead-letters/groups", responses=reading(), tags=["outbox"], operation="outbox.read")
async def group_dead_letters(
    operations: ClientBulkhead,
    destination: OneDestination = None,
    type: EventType = None,  # noqa: A002  # the name that clients know
) -> GroupList:
    """List dead letters in groups of one destination, one type and similar errors."""
    wanted = Selection(among=Among.DEAD, destination=destination, type=type, everything=True)
    groups = await operations.run(lambda session: list(dead_letters.grouped(session, wanted)))
    return GroupList([GroupView.of(one) for one in groups])


@get("/outbox/dead-letters", responses=reading(), tags=["outbox"], operation="outbox.read")
async def list_dead_letters(
    operations: ClientBulkhead,
    destination: OneDestination = None,
    type: EventType = None,  # noqa: A002
    group: GroupName = None,
    limit: Limit = 100,
    cursor: Cursor = 0,
) -> LetterPage:
    """List dead letters in order of id, without their payloads."""
    wanted = Selection(among=Among.DEAD, destination=destination, type=type, group=group, everything=True)
    found = await operations.run(lambda session: dead_letters.find(session, wanted, after=cursor, limit=limit))
    return LetterPage([LetterView.of(one) for one in found], str(found[-1].id) if len(found) == limit else None)


@post(
    "/outbox/dead-letters/replay",
    dto=Strict[DeadLetterRequest],
    status_code=200,
    responses=changing(),
    tags=["outbox"],
    operation="outbox.replay",
)
async def replay_dead_letters(
    request: AnyRequest, data: DeadLetterRequest, operations: ClientBulkhead, routes: Routes
) -> Response[Progress]:
    """Send dead letters again: the same events with the same ids, in their order."""
    return await _batch(request, data, operations, routes, "replay", Among.DEAD, _replaying(routes))


@post(
    "/outbox/dead-letters/discard",
    dto=Strict[DeadLetterRequest],
    status_code=200,
    responses=changing(),
    tags=["outbox"],
    operation="outbox.discard",
)
async def discard_dead_letters(
    request: AnyRequest, data: DeadLetterRequest, operations: ClientBulkhead, routes: Routes
) -> Response[Progress]:
    """Discard dead letters: they can't be replayed any more."""
    return await _batch(request, data, operations, routes, "discard", Among.DEAD, dead_letters.discard)


@post(
    "/outbox/replay",
    dto=Strict[ReplayRequest],
    status_code=200,
    responses=changing(),
    tags=["outbox"],
    operation="outbox.replay",
)
async def replay_delivered(
    request: AnyRequest, data: ReplayRequest, operations: ClientBulkhead, routes: Routes
) -> Response[Progress]:
    """Send delivered events again: the same events with the same ids, marked as replayed, in their order."""
    return await _batch(request, data, operations, routes, "replay", Among.DELIVERED, _replaying(routes))


Verb = Callable[[Session, Batch], Changed]


def _replaying(routes: Routes) -> Verb:
    return partial(replay.replay, step_types=routes.step_types)


async def _batch(
    request: AnyRequest,
    data: BulkRequest,
    operations: ClientBulkhead,
    routes: Routes,
    action: str,
    among: Among,
    verb: Verb,
) -> Response[Progress]:
    key = key_of(request.scope, f"outbox.{action}.{among}")
    selection = data.selection.to_selection(among)
    entry = AuditEntry(who=principal_of(request.scope).name, why=data.why)

    def change(session: Session) -> Progress:
        selected = selection.as_of_now(session)
        if data.dry_run:
            # The whole selection is counted by a dry run only: at each step of a long replay it would take too long.
            counted = replay.count(session, selected, routes.step_types)
            return _progress(selected, counted.rows, None, skipped_steps=counted.skipped_steps)
        changed = verb(session, Batch(selection=selected, entry=entry, after=int(data.cursor), limit=data.limit))
        return _progress(selected, changed.rows, changed.following.after if changed.following else None)

    payload_hash = hash_of(await request.body()) if key else ""
    outcome = await operations.run(lambda session: idempotency.once(session, key, payload_hash, change, _rendered))
    return answered(outcome, status=200, at="/outbox")


def _progress(selection: Selection, rows: int, after: int | None, skipped_steps: int | None = None) -> Progress:
    assert selection.before is not None
    return Progress(
        rows=rows,
        dry_run=skipped_steps is not None,
        skipped_steps=skipped_steps,
        before=selection.before,
        next_cursor=None if after is None else str(after),
    )


@get("/outbox/why/{subject_id:str}", responses=reading(NotInOutbox), tags=["outbox"], operation="outbox.read")
async def explain_delivery(
    subject_id: Annotated[UUID, Parameter(description="The id of an event or of a reservation")],
    operations: ClientBulkhead,
    routes: Routes,
) -> DeliveryList:
    """Explain each delivery of an event or of a reservation: its state, and why it is not delivered."""
    explained = await operations.run(lambda session: explain(session, subject_id, routes.names))
    return DeliveryList([DeliveryView.of(one) for one in explained])


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
