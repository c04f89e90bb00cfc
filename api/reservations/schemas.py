"""The shapes of reservations, and of the requests that make and change them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from api.http.fields import ItemId, Sku
from api.reservations.cursors import write_start
from api.reservations.metadata import NONE, Metadata, require_bounded
from api.reservations.people import Email, Name, SpecialRequests, Telephone, person_of
from domain.calendars import Period
from domain.items import MAX_QUANTITY
from domain.privacy import Person
from domain.reservations import Claim, Page, Reservation, WindowPage
from domain.reservations.lifecycle import MAX_HOLD, Status
from domain.runtime.errors import Invalid

#: No hold lasts for longer.
MAX_TTL_SECONDS = int(MAX_HOLD.total_seconds())

#: The most lines of a reservation. Their items are locked together, so they should not be many.
MAX_LINES = 50

Quantity = Annotated[int, Meta(ge=1, le=MAX_QUANTITY, examples=[2])]
Reason = Annotated[str, Meta(min_length=1, max_length=500, examples=["The guest's plans changed"])]
Ttl = Annotated[int, Meta(ge=1, le=MAX_TTL_SECONDS, examples=[900])]
Note = Annotated[str, Meta(max_length=2_000, examples=["Late arrival"])]
GuestId = Annotated[str, Meta(min_length=1, max_length=64, examples=["guest-42"])]
#: With an offset from UTC: without one its meaning would depend on the place.
Instant = Annotated[datetime, Meta(tz=True, examples=["2030-05-03T15:00:00Z"])]
Version = Annotated[int, Meta(ge=1, le=MAX_QUANTITY, examples=[1])]


class Guest(msgspec.Struct):
    """The guest that a reservation is for, by the id that your systems use. It has no personal data."""

    id: GuestId


class NewGuest(msgspec.Struct, forbid_unknown_fields=True):
    """The guest that a reservation is for: by the `id` that your systems use, and who it is, if that is to be kept.

    Everything but the `id` is personal data. It needs a `name`, and is in no answer but that of
    `GET /reservations/{id}/guest`.
    """

    id: GuestId | None = None
    name: Name | None = None
    email: Email | None = None
    telephone: Telephone | None = None
    special_requests: SpecialRequests | None = None

    def __repr__(self) -> str:
        return "NewGuest(…)"

    @property
    def person(self) -> Person | None:
        """Who the guest is, if that is given. Raises Invalid."""
        given = (self.name, self.email, self.telephone, self.special_requests)
        if not any(one is not None for one in given):
            if self.id is None:
                raise Invalid("guest.id", "give the id of the guest, its name, or both")
            return None
        return person_of(*given, within="guest.")


class NewLine(msgspec.Struct, forbid_unknown_fields=True):
    """Units of one item. Name it by either `item_id` or `sku`."""

    quantity: Quantity
    item_id: ItemId | None = None
    sku: Sku | None = None


class NewReservation(msgspec.Struct, forbid_unknown_fields=True):
    """A hold to make. Name its item by either `item_id` or `sku`, or several items in `lines`.

    Calendars are reserved from `start` until just before `end`, all lines for the same time; stock has neither. All
    lines are held, or none. The hold expires after `ttl_seconds`.
    """

    quantity: Quantity | None = None
    item_id: ItemId | None = None
    sku: Sku | None = None
    lines: Annotated[list[NewLine], Meta(min_length=1, max_length=MAX_LINES)] | None = None
    start: Instant | None = None
    end: Instant | None = None
    ttl_seconds: Ttl | None = None
    guest: NewGuest | None = None
    note: Note | None = None
    # By a function, because the OpenAPI document can't show this value as a default.
    metadata: Metadata = msgspec.field(default_factory=lambda: NONE)

    def __post_init__(self) -> None:
        if self.metadata is not NONE:
            require_bounded(bytes(self.metadata))

    @property
    def claims(self) -> tuple[Claim, ...]:
        """The units that it is for, line by line. Raises Invalid."""
        period = period_of(self.start, self.end)
        if self.lines is None:
            return (_claim_of(self.item_id, self.sku, self.quantity, period),)
        for name in ("item_id", "sku", "quantity"):
            if getattr(self, name) is not None:
                raise Invalid(name, "give either lines or one item, and not both")
        return tuple(_claim_of(line.item_id, line.sku, line.quantity, period, within="lines.") for line in self.lines)

    @property
    def person(self) -> Person | None:
        """Who its guest is, if that is given. Raises Invalid."""
        return None if self.guest is None else self.guest.person

    @property
    def metadata_text(self) -> str | None:
        """The metadata as it is kept."""
        text = bytes(self.metadata).decode()
        return None if text == "null" else text


def period_of(start: datetime | None, end: datetime | None) -> Period | None:
    """Return the period from `start` until `end`, if both are given. Raises Invalid."""
    if start is None and end is None:
        return None
    if start is None or end is None:
        raise Invalid("start" if start is None else "end", "give both start and end, or neither")
    return Period(start, end)


def _claim_of(
    item_id: int | None, sku: str | None, quantity: int | None, period: Period | None, *, within: str = ""
) -> Claim:
    if quantity is None:
        raise Invalid(f"{within}quantity", "it is required")
    if item_id is None and sku is None:
        raise Invalid(f"{within}item_id", "give item_id or sku" if within else "give item_id or sku, or lines")
    if item_id is not None and sku is not None:
        raise Invalid(f"{within}item_id", "give either item_id or sku, and not both")
    return Claim(item_id or sku or "", quantity, period)


class Versioned(msgspec.Struct, forbid_unknown_fields=True):
    """The version to change. Without it, the current version is changed."""

    expected_version: Version | None = None


class Confirmation(Versioned, forbid_unknown_fields=True):
    """The version to confirm. Without it, the current version is confirmed."""


class CheckIn(Versioned, forbid_unknown_fields=True):
    """The version to check in. Without it, the current version is checked in."""


class Completion(Versioned, forbid_unknown_fields=True):
    """The version to complete. Without it, the current version is completed."""


class Reasoned(Versioned, forbid_unknown_fields=True):
    """The reason and the version to change, both optional. Without a version, the current one is changed."""

    reason: Reason | None = None


class Cancellation(Reasoned, forbid_unknown_fields=True):
    """The reason and the version to cancel, both optional. Without a version, the current one is cancelled."""


class Rejection(Reasoned, forbid_unknown_fields=True):
    """The reason and the version to reject, both optional. Without a version, the current one is rejected."""


class NoShow(Reasoned, forbid_unknown_fields=True):
    """The reason and the version to change, both optional. Without a version, the current one is changed."""


class LongerHold(Versioned, forbid_unknown_fields=True, kw_only=True):
    """For how long the hold is to last from now on, and the version to extend. Without it, the current one is extended.

    A hold that lasts for longer already stays as it is.
    """

    ttl_seconds: Ttl


class ReservationChange(msgspec.Struct, forbid_unknown_fields=True):
    """The fields to change, as a JSON Merge Patch (RFC 7396): null takes a value away. At least one must be given."""

    note: Note | UnsetType | None = UNSET


class NewTime(Versioned, forbid_unknown_fields=True):
    """Another period, another quantity, or both, and the version to change. What is left out stays as it is."""

    start: Instant | None = None
    end: Instant | None = None
    quantity: Quantity | None = None


class LineView(msgspec.Struct):
    """Units of one item within a reservation."""

    item_id: ItemId
    sku: Sku
    quantity: Quantity


class ReservationView(msgspec.Struct):
    """A reservation. While it is PENDING, it is a hold that expires at `expires_at`. Timestamps are in UTC.

    Time of a calendar is reserved from `start` until just before `end`, which are null for stock.
    `confirmed_at` and its like say when it reached these statuses.
    `lines` has all its items; the first of them is also in `item_id`, `sku` and `quantity`.
    `cancellation_reason` says why it was cancelled or rejected.
    """

    id: UUID
    item_id: ItemId
    sku: Sku
    quantity: Quantity
    lines: list[LineView]
    status: Status
    version: Version
    start: datetime | None
    end: datetime | None
    expires_at: datetime | None
    guest: Guest | None
    source: str
    note: str | None
    metadata: Metadata
    cancellation_reason: str | None
    created_at: datetime
    updated_at: datetime
    confirmed_at: datetime | None
    checked_in_at: datetime | None
    completed_at: datetime | None
    cancelled_at: datetime | None
    rejected_at: datetime | None

    @classmethod
    def of(cls, reservation: Reservation) -> Self:
        return cls(
            id=reservation.id,
            item_id=reservation.item_id,
            sku=reservation.sku,
            quantity=reservation.quantity,
            lines=[LineView(line.item_id, line.sku, line.quantity) for line in reservation.lines],
            status=reservation.status,
            version=reservation.version,
            start=reservation.starts_at,
            end=reservation.ends_at,
            expires_at=reservation.expires_at,
            guest=None if reservation.guest_id is None else Guest(reservation.guest_id),
            source=reservation.source,
            note=reservation.note,
            metadata=NONE if reservation.metadata is None else Raw(reservation.metadata),
            cancellation_reason=reservation.cancellation_reason,
            created_at=reservation.created_at,
            updated_at=reservation.updated_at,
            confirmed_at=reservation.confirmed_at,
            checked_in_at=reservation.checked_in_at,
            completed_at=reservation.completed_at,
            cancelled_at=reservation.cancelled_at,
            rejected_at=reservation.rejected_at,
        )


class ReservationPage(msgspec.Struct):
    """Reservations, the newest first or in order of their start. If there is a `next_cursor`, there may be more.

    To get them, send it back as `cursor`. A page may have fewer reservations than `limit`, even none, and a
    `next_cursor`.
    """

    reservations: list[ReservationView]
    next_cursor: str | None

    @classmethod
    def of(cls, page: Page) -> Self:
        return cls(_views(page.reservations), None if page.next_before is None else str(page.next_before))

    @classmethod
    def of_window(cls, page: WindowPage) -> Self:
        return cls(_views(page.reservations), None if page.next_after is None else write_start(*page.next_after))


def _views(reservations: Sequence[Reservation]) -> list[ReservationView]:
    return [ReservationView.of(one) for one in reservations]


def render_reservation(reservation: Reservation) -> str:
    """Return a reservation as JSON."""
    return msgspec.json.encode(ReservationView.of(reservation)).decode()
