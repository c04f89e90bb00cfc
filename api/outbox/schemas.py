"""The shapes of what operators read of the outbox, and of the changes that they request."""

from collections.abc import Collection
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Literal, Self, cast
from uuid import UUID

import msgspec
from msgspec import Meta

from api.http.decoding import END
from domain.access.audit import WHY_LENGTH
from domain.outbox.operations.dead_letters import Group, Letter
from domain.outbox.operations.destinations import Condition, DestinationStatus
from domain.outbox.operations.explain import End, Explanation, Obstacle
from domain.outbox.operations.selection import Among, Selection
from domain.outbox.operations.status import MAX_COUNTED, CountedStatus, CountName

#: No request changes more rows, so that each is answered within a second. The next request continues.
MAX_ROWS = 1_000

WhyText = Annotated[str, Meta(min_length=1, max_length=WHY_LENGTH, examples=["The shop is back (OPS-7)"])]
Timestamp = Annotated[datetime, Meta(tz=True)]
RowId = Annotated[int, Meta(ge=1, le=2**63 - 1)]
#: The number of a row, as `next_cursor` returns it. No row has a number with more digits.
Cursor = Annotated[str, Meta(pattern=f"^[0-9]{{1,18}}{END}")]


class Selected(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The rows to change. Filters are combined with AND; to select every row, set `all`.

    `type` may contain `*` for any characters. `since` (inclusive) and `before` (exclusive) bound the time at which
    the row was delivered or became a dead letter.
    """

    id: RowId | None = None
    event_id: UUID | None = None
    reservation_id: UUID | None = None
    type: Annotated[str, Meta(min_length=1, max_length=50)] | None = None
    destination: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    since: Timestamp | None = None
    before: Timestamp | None = None
    all: bool = False

    def to_selection(self, among: Among) -> Selection:
        """Return the selection among rows of that kind. Raises Invalid."""
        given = msgspec.structs.asdict(self)
        return Selection(among=among, row_id=given.pop("id"), everything=given.pop("all"), **given)


class SelectedLetters(Selected, forbid_unknown_fields=True, omit_defaults=True):
    """The dead letters to change. Filters are combined with AND; to select every dead letter, set `all`.

    `error` is a part of the last error, `group` the name of a group.
    """

    error: Annotated[str, Meta(min_length=1, max_length=1_000)] | None = None
    group: Annotated[str, Meta(pattern=f"^[0-9a-f]{{8}}{END}")] | None = None


class ActionRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The reason for an action. The audit keeps it, with the sender of the request."""

    why: WhyText


class BulkRequest(ActionRequest, forbid_unknown_fields=True, kw_only=True):
    """Rows to change, at most `limit` of them (or all of one reservation) with one request, and why.

    A dry run only counts them.
    """

    selection: Selected
    dry_run: bool = False
    limit: Annotated[int, Meta(ge=1, le=MAX_ROWS)] = 500
    cursor: Cursor = "0"


class DeadLetterRequest(BulkRequest, forbid_unknown_fields=True, kw_only=True):
    """Dead letters to replay or to discard. To continue, send `before` and `next_cursor` of the answer back."""

    selection: SelectedLetters


class ReplayRequest(BulkRequest, forbid_unknown_fields=True, kw_only=True):
    """Delivered rows to replay. To continue, send `before` and `next_cursor` of the answer back."""


class Progress(msgspec.Struct):
    """How many rows were changed, or would be without the dry run. If there is a `next_cursor`, there may be more.

    `skipped_steps` is counted by a dry run only: delivered steps that match. A replay skips them, because their
    answers have changed their reservations and stay valid.
    """

    rows: int
    dry_run: bool
    skipped_steps: int | None
    before: datetime
    next_cursor: str | None


class DestinationStatusView(msgspec.Struct):
    """The status of a destination. `routed` is whether the present routes have it: workers deliver to no other."""

    name: str
    condition: Condition
    routed: bool
    reason: str | None
    paused_at: datetime | None
    down_since: datetime | None
    next_probe_at: datetime | None

    @classmethod
    def of(cls, one: DestinationStatus, routed: Collection[str]) -> Self:
        return cls(
            name=one.name,
            condition=one.condition,
            routed=one.name in routed,
            reason=one.reason,
            paused_at=one.paused_at,
            down_since=one.opened_at,
            next_probe_at=one.next_probe_at,
        )


LowerBounds = Annotated[
    list[CountName],
    Meta(description=f"The counts that may be higher: rows of one kind are counted up to {MAX_COUNTED:,}"),
]


class DestinationView(DestinationStatusView):
    """The status of a destination, with its rows counted. `pending` rows are neither delivered nor dead.

    `waiting` counts the pending rows that wait for their next attempt, or for an earlier row that does.
    """

    pending: int
    waiting: int
    dead: int
    lower_bounds: LowerBounds
    oldest_pending_at: datetime | None
    lanes_leased: int

    @classmethod
    def of_status(cls, one: CountedStatus, routed: Collection[str]) -> Self:
        return cls(
            **msgspec.structs.asdict(DestinationStatusView.of(one, routed)),
            pending=one.pending,
            waiting=one.waiting,
            dead=one.dead,
            lower_bounds=list(one.lower_bounds),
            oldest_pending_at=one.oldest_pending_at,
            lanes_leased=len(one.holders),
        )


class DestinationList(msgspec.Struct):
    """All destinations in order of name, including those that only rows name."""

    destinations: list[DestinationView]


class GroupView(msgspec.Struct):
    """Dead letters of one type to one destination with similar errors. `error` has `#` in place of what varies."""

    group: str
    destination: str
    type: str
    error: str
    rows: int
    oldest: datetime
    newest: datetime
    example_event_id: UUID

    @classmethod
    def of(cls, one: Group) -> Self:
        return cls(one.name, one.destination, one.type, one.error, one.rows, one.oldest, one.newest, one.example)


class GroupList(msgspec.Struct):
    """Groups of dead letters, the largest first."""

    groups: list[GroupView]


class LetterView(msgspec.Struct):
    """A dead letter, without its payload."""

    id: int
    event_id: UUID
    reservation_id: UUID
    destination: str
    type: str
    group: str
    attempts: int
    error: str | None
    created_at: datetime
    dead_at: datetime
    replayed_at: datetime | None

    @classmethod
    def of(cls, one: Letter) -> Self:
        return cls(
            id=one.id,
            event_id=one.event_id,
            reservation_id=one.aggregate_id,
            destination=one.destination,
            type=one.type,
            group=one.group,
            attempts=one.attempts,
            error=one.last_error,
            created_at=one.created_at,
            dead_at=one.dead_at,
            replayed_at=one.replayed_at,
        )


class LetterPage(msgspec.Struct):
    """Dead letters in order of id. If there is a `next_cursor`, there may be more: send it back as `cursor`."""

    dead_letters: list[LetterView]
    next_cursor: str | None


#: First how a delivery can end, then what can prevent or delay it.
StateKind = Literal[
    "delivered",
    "dead",
    "discarded",
    "unrouted",
    "unregistered",
    "paused",
    "breaker_open",
    "blocked_by_earlier_event",
    "in_flight",
    "waiting",
    "leased",
    "ready",
]


class DeliveryState(msgspec.Struct, omit_defaults=True):
    """The state of a delivery, or one of the reasons why it is pending. Only the facts of its kind are present."""

    kind: StateKind
    at: datetime | None = None
    since: datetime | None = None
    until: datetime | None = None
    error: str | None = None
    reason: str | None = None
    attempts: int | None = None
    event_id: UUID | None = None
    type: str | None = None
    holder: str | None = None

    @classmethod
    def of(cls, one: End | Obstacle) -> Self:
        return cls(kind=cast(StateKind, one.kind), **asdict(one))


class DeliveryView(msgspec.Struct):
    """The delivery of one event to one destination. `states` has how it ended, or all reasons why it is pending."""

    event_id: UUID
    reservation_id: UUID
    type: str
    destination: str
    created_at: datetime
    replayed_at: datetime | None
    states: list[DeliveryState]

    @classmethod
    def of(cls, one: Explanation) -> Self:
        return cls(
            event_id=one.event_id,
            reservation_id=one.aggregate_id,
            type=one.type,
            destination=one.destination,
            created_at=one.created_at,
            replayed_at=one.replayed_at,
            states=[DeliveryState.of(state) for state in ([one.end] if one.end else one.obstacles)],
        )


class DeliveryList(msgspec.Struct):
    """The deliveries of an event or of a reservation, in order."""

    deliveries: list[DeliveryView]
