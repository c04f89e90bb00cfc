"""Every error that the domain raises on purpose, as facts. Each endpoint chooses the words and the status codes.

HoldfastError
├── Refusal                 the answer is no, and nothing has changed
│   ├── Invalid
│   ├── NotAuthenticated
│   ├── NotAllowed
│   ├── IllegalTransition
│   ├── NoFeed
│   ├── NotFound
│   │   ├── UnknownItem
│   │   ├── UnknownVenue
│   │   ├── UnknownSlot
│   │   ├── UnknownReservation
│   │   ├── UnknownReference
│   │   ├── UnknownDestination
│   │   ├── NotInOutbox
│   │   ├── PositionGone
│   │   ├── UnknownGuest
│   │   └── GuestForgotten
│   └── Conflict            the request contradicts the present state
│       ├── SoldOut
│       ├── SlotTaken
│       ├── SlotHasBegun
│       ├── SlotsOverlap
│       ├── NotFree
│       ├── OutsideOpeningHours
│       ├── CapacityInUse
│       ├── SkuTaken
│       ├── ReferenceTaken
│       ├── InsufficientAvailableStock
│       ├── CalendarChanged
│       ├── WrongStatus
│       ├── HoldExpired
│       ├── HoldTooLong
│       ├── StaleVersion
│       ├── StalePrecondition
│       ├── IdempotencyKeyReused
│       └── NoKeys
└── Unavailable             the client may ask again
    ├── Busy
    ├── RateLimited
    │   ├── TooManyRequests
    │   └── FailedTooOften
    ├── DatabaseUnavailable
    ├── KeysUnavailable
    ├── OutcomeUnknown
    ├── GuestUnreadable
    ├── PersonalDataUnavailable
    └── SearchIncomplete

ConfigurationError stands apart: it ends a process at its start and never reaches a client.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID


class ConfigurationError(Exception):
    """Raised while a process starts, when a setting, the routes file or an option can't be used."""


class HoldfastError(Exception):
    """The root of the tree. `str()` is for logs; an endpoint renders the fields."""

    def __str__(self) -> str:
        facts = ", ".join(f"{name}={value!s}" for name, value in vars(self).items())
        return f"{type(self).__name__}({facts})"


class Refusal(HoldfastError):
    """The answer is no, and nothing has changed."""


class NotFound(Refusal):
    """The request names something that does not exist."""

    @property
    def field(self) -> str:
        """The field of the request that names it."""
        raise NotImplementedError


class Conflict(Refusal):
    """The request contradicts the present state."""


class Unavailable(HoldfastError):
    """The request was not decided, or nobody knows how. The client may ask again after `retry_after_seconds`."""

    retry_after_seconds: int


@dataclass(eq=False)
class Invalid(Refusal):
    """Raised when one field of a request has a value that is never allowed."""

    field: str
    reason: str


@dataclass(eq=False)
class NotAuthenticated(Refusal):
    """Raised when a request that needs credentials has none, or some that can't be used. `reason` says why not."""

    reason: str


@dataclass(eq=False)
class NotAllowed(Refusal):
    """Raised when none of the sender's roles may use an operation, or not in this way."""

    operation: str


@dataclass(eq=False)
class IllegalTransition(Refusal):
    """Raised when a booking can't go from its status to the one that was asked for, but to those `allowed`."""

    status: str
    to: str
    allowed: str


@dataclass(eq=False)
class NoFeed(Refusal):
    """Raised when the feed is read and no destination appends events to it."""


@dataclass(eq=False)
class UnknownItem(NotFound):
    """Raised when no item has the given id (a number) or sku (text)."""

    item: int | str

    @property
    def field(self) -> str:
        return "item_id" if isinstance(self.item, int) else "sku"


@dataclass(eq=False)
class UnknownVenue(NotFound):
    """Raised when no calendar belongs to the given venue, or not the one that is named with it."""

    venue: str

    @property
    def field(self) -> str:
        return "venue_id"


@dataclass(eq=False)
class UnknownSlot(NotFound):
    """Raised when no slot has the given id."""

    slot_id: str

    @property
    def field(self) -> str:
        return "slotId"


@dataclass(eq=False)
class UnknownReservation(NotFound):
    """Raised when no reservation has the given id."""

    reservation_id: UUID

    @property
    def field(self) -> str:
        return "reservation_id"


@dataclass(eq=False)
class UnknownReference(NotFound):
    """Raised when no booking has the given reference."""

    reference: str

    @property
    def field(self) -> str:
        return "reference"


@dataclass(eq=False)
class UnknownDestination(NotFound):
    """Raised when the database knows no destination of that name. `known` lists those that it knows."""

    destination: str
    known: str

    @property
    def field(self) -> str:
        return "name"


@dataclass(eq=False)
class NotInOutbox(NotFound):
    """Raised when the outbox has no row of that event or reservation. `subject_id` may be the id of either."""

    subject_id: UUID

    @property
    def field(self) -> str:
        return "subject_id"


@dataclass(eq=False)
class PositionGone(NotFound):
    """Raised when the feed does not have what followed the position `after`. `oldest` is the first that it has."""

    after: int
    oldest: int

    @property
    def field(self) -> str:
        return "after"


@dataclass(eq=False)
class UnknownGuest(NotFound):
    """Raised when the guest of a reservation is asked for that has none."""

    reservation_id: UUID

    @property
    def field(self) -> str:
        return "reservation_id"


@dataclass(eq=False)
class GuestForgotten(NotFound):
    """Raised when the guest of a reservation is asked for, or to be changed, who was forgotten."""

    reservation_id: UUID
    forgotten_at: datetime

    @property
    def field(self) -> str:
        return "reservation_id"


@dataclass(eq=False)
class SoldOut(Conflict):
    """Raised when more units are requested than are available."""

    sku: str
    asked: int
    available_quantity: int


@dataclass(eq=False)
class SlotTaken(Conflict):
    """Raised when a slot is booked that somebody else has, or that was withdrawn."""

    slot_id: str


@dataclass(eq=False)
class SlotHasBegun(Conflict):
    """Raised when a slot is booked that has begun."""

    slot_id: str
    slot_start: datetime


@dataclass(eq=False)
class SlotsOverlap(Conflict):
    """Raised when a provider offers a slot at the time of another one without asking for it."""

    slot_id: str
    slot_start: datetime
    slot_end: datetime


class InTheWay(NamedTuple):
    """Units of a calendar that are taken for a period, buffers included. If it is a hold, it may lapse."""

    start: datetime
    end: datetime
    quantity: int
    lapses_at: datetime | None


class Alternative(NamedTuple):
    """What can be reserved instead: so many units of that item, for that period."""

    sku: str
    start: datetime
    end: datetime
    quantity: int


@dataclass(eq=False)
class NotFree(Conflict):
    """Raised when more units of a calendar are requested than are free throughout the period.

    If it is explained, `conflicts` are in the way, the first ones in order of time, and `alternatives` are free.
    """

    sku: str
    asked: int
    available_quantity: int
    start: datetime
    end: datetime
    conflicts: Sequence[InTheWay] | None = None
    alternatives: Sequence[Alternative] | None = None


@dataclass(eq=False)
class OutsideOpeningHours(Conflict):
    """Raised when a calendar is requested for a period in which it is not open throughout.

    `opening_hours` has the first days of the period with the spans in which it is open, in wall time of `time_zone`.
    """

    sku: str
    time_zone: str
    opening_hours: Mapping[str, Sequence[str]]


@dataclass(eq=False)
class CapacityInUse(Conflict):
    """Raised when a calendar is to have a smaller capacity than reservations use at some moment from now on."""

    sku: str
    capacity: int
    in_use: int


@dataclass(eq=False)
class SkuTaken(Conflict):
    """Raised when an item is created with the sku of another one."""

    sku: str


@dataclass(eq=False)
class ReferenceTaken(Conflict):
    """Raised when a reservation is made with the outside reference of another reservation of the same client."""

    external_reference: str


@dataclass(eq=False)
class InsufficientAvailableStock(Conflict):
    """Raised when stock is to be reduced by more units than are available; the others are held by reservations."""

    sku: str
    adjust_quantity_by: int
    available_quantity: int


@dataclass(eq=False)
class CalendarChanged(Conflict):
    """Raised when a calendar has another venue or time zone than whoever asked for its time has seen."""

    sku: str


@dataclass(eq=False)
class WrongStatus(Conflict):
    """Raised when the lifecycle does not allow a change in the present status. `to` is the new status, if any."""

    status: str
    to: str | None = None


@dataclass(eq=False)
class HoldExpired(Conflict):
    """Raised when a hold is to be confirmed or changed after its `expires_at`."""

    reservation_id: UUID
    expired_at: datetime


@dataclass(eq=False)
class HoldTooLong(Conflict):
    """Raised when a hold is to be extended beyond the longest life of a hold, which ends at `latest_expires_at`."""

    reservation_id: UUID
    latest_expires_at: datetime


@dataclass(eq=False)
class StaleVersion(Conflict):
    """Raised when the `expected_version` of a request's body is not the current version."""

    expected_version: int
    current_version: int


@dataclass(eq=False)
class StalePrecondition(Conflict):
    """Raised when none of the ETags in an If-Match header is the current one. An item has no `current_version`."""

    if_match: str
    current_etag: str
    current_version: int | None = None


@dataclass(eq=False)
class IdempotencyKeyReused(Conflict):
    """Raised when an idempotency key comes again with another request than the one it was first used for."""

    key: str


@dataclass(eq=False)
class NoKeys(Conflict):
    """Raised when personal data is to be kept, or to be found, and this process has no keys for it."""


@dataclass(eq=False)
class Busy(Unavailable):
    """Raised when a queue is full, or a lock or a connection was not to be had in time."""

    retry_after_seconds: int = 1


@dataclass(eq=False)
class RateLimited(Unavailable):
    """A limit is used up: `quota` requests within `seconds`. `limit` is the name of the limit."""

    limit: str
    quota: int
    seconds: int
    retry_after_seconds: int


@dataclass(eq=False)
class TooManyRequests(RateLimited):
    """Raised when a sender has sent more requests than a limit allows."""


@dataclass(eq=False)
class FailedTooOften(RateLimited):
    """Raised when too many requests from an address had no credentials that can be used."""


@dataclass(eq=False)
class DatabaseUnavailable(Unavailable):
    """Raised when PostgreSQL can't be reached, is starting or stopping, or has run out of a resource."""

    retry_after_seconds: int = 2


@dataclass(eq=False)
class KeysUnavailable(Unavailable):
    """Raised when credentials may be good, and what they are checked by can't be read at present."""

    retry_after_seconds: int = 2


@dataclass(eq=False)
class OutcomeUnknown(Unavailable):
    """Raised when PostgreSQL was asked to commit, and the connection broke before it answered."""

    retry_after_seconds: int = 2


@dataclass(eq=False)
class GuestUnreadable(Unavailable):
    """Raised when this process does not have the key that wrapped a guest's data key, or has another key of its id."""

    key_id: str
    retry_after_seconds: int = 30


@dataclass(eq=False)
class PersonalDataUnavailable(Unavailable):
    """Raised when the service that keeps the keys of personal data can't be reached, or does not answer in time."""

    retry_after_seconds: int = 5


@dataclass(eq=False)
class SearchIncomplete(Unavailable):
    """Raised when nobody was found, and there are guests who can't be found, for the same want of a key."""

    key_id: str
    retry_after_seconds: int = 30
