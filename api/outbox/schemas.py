"""What operators see of the outbox, and the shapes of what they ask for."""

import re
from collections.abc import Collection
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

import msgspec
from msgspec import Meta

from domain.outbox.operations.audit import WHY_LENGTH
from domain.outbox.operations.dead_letters import Group, Letter
from domain.outbox.operations.destinations import Destination, State
from domain.outbox.operations.explain import Delivery, End, Obstacle
from domain.outbox.operations.selection import Among, Selection
from domain.outbox.operations.status import MOST, Count, Standing

#: No request changes more rows: it is answered within a second, and the next one goes on.
MAX_ROWS = 1_000

WhyText = Annotated[str, Meta(min_length=1, max_length=WHY_LENGTH, examples=["The shop is back (OPS-7)"])]
Moment = Annotated[datetime, Meta(tz=True)]
RowId = Annotated[int, Meta(ge=1, le=2**63 - 1)]
#: As the answers have it: the number of a row, which has no more digits than that in any database.
Cursor = Annotated[str, Meta(pattern="^[0-9]{1,18}$")]


class Selected(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Which rows are meant: all that is given must fit. Who means every one says `all`.

    `type` may have `*` for any run of characters; `since` (inclusive) and `until`
    (exclusive) bound the time of death or of delivery.
    """

    id: RowId | None = None
    event_id: UUID | None = None
    reservation_id: UUID | None = None
    type: Annotated[str, Meta(min_length=1, max_length=50)] | None = None
    destination: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    since: Moment | None = None
    until: Moment | None = None
    all: bool = False

    def means(self, among: Among) -> Selection:
        """Return the selection. Raises Invalid."""
        given = msgspec.structs.asdict(self)
        return Selection(among=among, row_id=given.pop("id"), everything=given.pop("all"), **given)


class SelectedLetters(Selected, forbid_unknown_fields=True, omit_defaults=True):
    """Which dead letters are meant: all that is given must fit. Who means every one says `all`.

    `error` is a part of the last error, `group` the name of a group.
    """

    error: Annotated[str, Meta(min_length=1, max_length=1_000)] | None = None
    group: Annotated[str, Meta(pattern="^[0-9a-f]{8}$")] | None = None


class Reason(msgspec.Struct, forbid_unknown_fields=True):
    """Why it is done. It is kept, with who: the client that X-Client-Id names."""

    why: WhyText


class Order(Reason, forbid_unknown_fields=True, kw_only=True):
    """Rows to change step by step, and why."""

    selection: Selected
    dry_run: bool = False
    limit: Annotated[int, Meta(ge=1, le=MAX_ROWS)] = 500
    cursor: Cursor = "0"


class LetterChange(Order, forbid_unknown_fields=True, kw_only=True):
    """Dead letters to replay or to discard. To go on, send `until` and `next_cursor` of the answer back."""

    selection: SelectedLetters


class ReplayOrder(Order, forbid_unknown_fields=True, kw_only=True):
    """Delivered rows to replay. To go on, send `until` and `next_cursor` of the answer back."""


class Progress(msgspec.Struct):
    """How many rows were changed, or by a dry run would be. With a `next_cursor` there may be more.

    `answered_steps`, of a dry run only: delivered steps that fit and are not replayed, as their answers stand.
    """

    rows: int
    dry_run: bool
    answered_steps: int | None
    until: datetime
    next_cursor: str | None


class DestinationState(msgspec.Struct):
    """What is known of a destination itself. `routed`: the present routes know it; nobody serves others."""

    name: str
    state: State
    routed: bool
    reason: str | None
    paused_at: datetime | None
    down_since: datetime | None
    next_probe_at: datetime | None

    @classmethod
    def of(cls, one: Destination, routed: Collection[str]) -> Self:
        return cls(
            name=one.name,
            state=one.state,
            routed=one.name in routed,
            reason=one.reason,
            paused_at=one.paused_at,
            down_since=one.opened_at,
            next_probe_at=one.next_probe_at,
        )


LowerBounds = Annotated[
    list[Count],
    Meta(description=f"The counts that may be higher: none is counted further than {MOST:,} rows of one kind"),
]


class DestinationView(DestinationState):
    """How a destination fares. `pending` rows have neither left nor died; `waiting` ones of them wait for a time.

    `lower_bounds` names the counts that may be higher, as counting ends at a bound.
    """

    pending: int
    waiting: int
    dead: int
    lower_bounds: LowerBounds
    oldest_pending_at: datetime | None
    lanes_in_hand: int

    @classmethod
    def standing(cls, one: Standing, routed: Collection[str]) -> Self:
        return cls(
            **msgspec.structs.asdict(DestinationState.of(one, routed)),
            pending=one.pending,
            waiting=one.waiting,
            dead=one.dead,
            lower_bounds=list(one.lower_bounds),
            oldest_pending_at=one.oldest_pending_at,
            lanes_in_hand=len(one.holders),
        )


class DestinationList(msgspec.Struct):
    """All destinations, those that only old rows know included, by name."""

    destinations: list[DestinationView]


class GroupView(msgspec.Struct):
    """Dead letters of one type to one destination with like errors: `#` stands for what varies."""

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
    """Dead letters in order of id. With a `next_cursor` there may be more: send it back as `cursor`."""

    dead_letters: list[LetterView]
    next_cursor: str | None


class Stand(msgspec.Struct, omit_defaults=True):
    """Where a delivery stands, or one thing that is in its way, with the facts that it has.

    `kind` is processed, dead or discarded; or of what is pending unrouted, homeless,
    paused, breaker_open, behind, backing_off, in_hand or ready.
    """

    kind: str
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
        kind = re.sub(r"(?<!^)(?=[A-Z])", "_", type(one).__name__).lower()
        return cls(kind=kind, **asdict(one))


class DeliveryView(msgspec.Struct):
    """One promise to one destination, and where it stands: one end, or all that is in its way at once."""

    event_id: UUID
    reservation_id: UUID
    type: str
    destination: str
    created_at: datetime
    replayed_at: datetime | None
    stands: list[Stand]

    @classmethod
    def of(cls, one: Delivery) -> Self:
        return cls(
            event_id=one.event_id,
            reservation_id=one.aggregate_id,
            type=one.type,
            destination=one.destination,
            created_at=one.created_at,
            replayed_at=one.replayed_at,
            stands=[Stand.of(stand) for stand in ([one.end] if one.end else one.obstacles)],
        )


class Whys(msgspec.Struct):
    """The deliveries of an event or of a reservation, in order."""

    deliveries: list[DeliveryView]
