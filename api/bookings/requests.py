"""The requests that make and change bookings."""

import msgspec
from msgspec import UNSET, Raw, UnsetType

from api.bookings.fields import (
    GUEST_FIELDS,
    MAX_METADATA_LEVELS,
    BookingDate,
    BookingTime,
    IdempotencyKey,
    InternalNotes,
    Minutes,
    SourceName,
    VenueId,
    VenueName,
    VenueType,
)
from api.http.fields import Sku
from api.reservations.metadata import NONE, Metadata, require_bounded
from api.reservations.people import Email, Name, SpecialRequests, Telephone, person_of
from api.reservations.schemas import GuestId, Quantity, Reason, Version
from domain.privacy import Person
from domain.reservations.lifecycle import Status
from domain.runtime.errors import Invalid


class _WithGuest(msgspec.Struct, kw_only=True):
    """A request with the personal data of a guest, which no log may show."""

    guest_name: Name | None = None
    guest_email: Email | None = None
    guest_phone: Telephone | None = None
    special_requests: SpecialRequests | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"

    @property
    def person(self) -> Person | None:
        """Who its guest is, if that is given. Raises Invalid."""
        given = (self.guest_name, self.guest_email, self.guest_phone, self.special_requests)
        return guest_of(*given) if any(one is not None for one in given) else None


class NewBooking(_WithGuest, forbid_unknown_fields=True, kw_only=True):
    """A booking to make: so many people, at a venue, at a time on its clock, for so long.

    A venue with several calendars needs an `inventory_item_id`, which is the sku of one of them. The fields of the
    guest and the `special_requests` are personal data, which need a `guest_name`.
    """

    venue_id: VenueId
    booking_date: BookingDate
    booking_time: BookingTime
    duration_minutes: Minutes
    party_size: Quantity
    inventory_item_id: Sku | None = None
    venue_type: VenueType | None = None
    venue_name: VenueName | None = None
    guest_id: GuestId | None = None
    internal_notes: InternalNotes | None = None
    source: SourceName = "api"
    metadata: Metadata = msgspec.field(default_factory=lambda: NONE)
    idempotency_key: IdempotencyKey | None = None

    def __post_init__(self) -> None:
        require_metadata(self.metadata)


def require_metadata(metadata: Raw) -> None:
    """Raise Invalid unless metadata may be kept with a booking."""
    if metadata is not NONE:
        require_bounded(bytes(metadata), levels=MAX_METADATA_LEVELS)


def guest_of(name: str | None, email: str | None, telephone: str | None, special_requests: str | None) -> Person:
    """Return the person with these fields. Raises Invalid, which names the field of this contract."""
    try:
        return person_of(name, email, telephone, special_requests)
    except Invalid as error:
        raise Invalid(GUEST_FIELDS.get(error.field, error.field), error.reason) from None


class _Optional(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What every change may have: the version to change, without which it is the current one, and a key."""

    expected_version: Version | None = None
    idempotency_key: IdempotencyKey | None = None


class BookingUpdate(_WithGuest, forbid_unknown_fields=True, kw_only=True):
    """What is to be changed of a booking, and the version to change, if the request has no If-Match.

    What is left out stays as it is. The fields of the guest and the `special_requests` are replaced together, and need
    a `guest_name`.
    """

    booking_date: BookingDate | None = None
    booking_time: BookingTime | None = None
    duration_minutes: Minutes | None = None
    party_size: Quantity | None = None
    internal_notes: InternalNotes | UnsetType | None = UNSET
    expected_version: Version | None = None
    idempotency_key: IdempotencyKey | None = None

    @property
    def has_time(self) -> bool:
        """Whether it says when the booking is to be."""
        return any(one is not None for one in (self.booking_date, self.booking_time, self.duration_minutes))


class BookingCancellation(_Optional, forbid_unknown_fields=True, kw_only=True):
    """Why a booking is cancelled, and the version to cancel. Without a version, the current one is cancelled."""

    reason: Reason | None = None


class BookingStatus(_Optional, forbid_unknown_fields=True, kw_only=True):
    """The status that a booking is to have, why, and the version to change, without which it is the current one."""

    status: Status
    reason: Reason | None = None


class AvailabilityCheck(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Is there room for so many people at a venue, at a time on its clock, for so long?"""

    venue_id: VenueId
    booking_date: BookingDate
    booking_time: BookingTime
    duration_minutes: Minutes
    party_size: Quantity
    inventory_item_id: Sku | None = None
