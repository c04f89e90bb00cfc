"""The shapes of reservations, and of the requests that make and change them."""

from collections.abc import Iterator
from datetime import datetime
from math import isinf
from typing import Annotated, Any, Self
from uuid import UUID

import msgspec
from litestar.openapi.spec import OpenAPIType, Schema
from litestar.plugins import OpenAPISchemaPlugin
from litestar.typing import FieldDefinition
from msgspec import UNSET, Meta, Raw, UnsetType

from api.http.decoding import sentence
from api.http.fields import ItemId, Sku
from domain.items import MAX_QUANTITY
from domain.reservations import Claim, Page, Reservation
from domain.reservations.lifecycle import MAX_HOLD, Status
from domain.runtime.errors import Invalid

#: No hold lasts for longer.
MAX_TTL_SECONDS = int(MAX_HOLD.total_seconds())

#: The most lines of a reservation. Their items are locked together, so they should not be many.
MAX_LINES = 50

#: The metadata that a client may keep with a reservation, in bytes of JSON as the client wrote it.
MAX_METADATA_BYTES = 16_384

#: The levels of objects and lists that metadata may have, and the values in all of them together. PostgreSQL reads each
#: value while other reservations are committed with it.
MAX_METADATA_DEPTH = 16
MAX_METADATA_VALUES = 1_000

#: The largest exponent of a number in metadata, either way, and its most digits: more than a `double` has. PostgreSQL
#: can't store a number that has far more, and all that is committed with it would fail.
MAX_EXPONENT = 400
MAX_DIGITS = 1_000

Quantity = Annotated[int, Meta(ge=1, le=MAX_QUANTITY, examples=[2])]
Reason = Annotated[str, Meta(min_length=1, max_length=500, examples=["The guest's plans changed"])]
Ttl = Annotated[int, Meta(ge=1, le=MAX_TTL_SECONDS, examples=[900])]
Note = Annotated[str, Meta(max_length=2_000, examples=["Late arrival"])]
Version = Annotated[int, Meta(ge=1, le=MAX_QUANTITY, examples=[1])]

#: An object of JSON, or null, as the client wrote it. Decoded and written anew, 1e308 would be 309 digits.
Metadata = Annotated[Raw, Meta(examples=[{"cart": "c-7"}])]


#: Metadata that was not given.
_NONE = Raw(b"null")


def _none() -> Raw:
    return _NONE


class Guest(msgspec.Struct, forbid_unknown_fields=True):
    """The guest that a reservation is for, by the id that your systems use."""

    id: Annotated[str, Meta(min_length=1, max_length=64, examples=["guest-42"])]


class NewLine(msgspec.Struct, forbid_unknown_fields=True):
    """Units of one item. Name it by either `item_id` or `sku`."""

    quantity: Quantity
    item_id: ItemId | None = None
    sku: Sku | None = None


class NewReservation(msgspec.Struct, forbid_unknown_fields=True):
    """A hold to make. Name its item by either `item_id` or `sku`, or several items in `lines`.

    All lines are held, or none. The hold expires after `ttl_seconds`.
    """

    quantity: Quantity | None = None
    item_id: ItemId | None = None
    sku: Sku | None = None
    lines: Annotated[list[NewLine], Meta(min_length=1, max_length=MAX_LINES)] | None = None
    ttl_seconds: Ttl | None = None
    guest: Guest | None = None
    note: Note | None = None
    metadata: Metadata = msgspec.field(default_factory=_none)

    def __post_init__(self) -> None:
        if self.metadata is not _NONE:
            _require_bounded(bytes(self.metadata))

    @property
    def claims(self) -> tuple[Claim, ...]:
        """The units that it is for, line by line. Raises Invalid."""
        if self.lines is None:
            return (_claim_of(self.item_id, self.sku, self.quantity),)
        for name in ("item_id", "sku", "quantity"):
            if getattr(self, name) is not None:
                raise Invalid(name, "give either lines or one item, and not both")
        return tuple(_claim_of(line.item_id, line.sku, line.quantity, within="lines.") for line in self.lines)

    @property
    def metadata_text(self) -> str | None:
        """The metadata as it is kept."""
        text = bytes(self.metadata).decode()
        return None if text == "null" else text


def _claim_of(item_id: int | None, sku: str | None, quantity: int | None, *, within: str = "") -> Claim:
    if quantity is None:
        raise Invalid(f"{within}quantity", "it is required")
    if item_id is None and sku is None:
        raise Invalid(f"{within}item_id", "give item_id or sku" if within else "give item_id or sku, or lines")
    if item_id is not None and sku is not None:
        raise Invalid(f"{within}item_id", "give either item_id or sku, and not both")
    return Claim(item_id or sku or "", quantity)


def _require_bounded(metadata: bytes) -> None:
    """Raise Invalid unless this is null or an object of JSON that may be kept. Its size is checked before all else."""
    if len(metadata) > MAX_METADATA_BYTES:
        raise Invalid("metadata", f"it has more than {MAX_METADATA_BYTES} bytes")
    try:
        decoded = _METADATA.decode(metadata)
    except msgspec.ValidationError as error:
        raise Invalid("metadata", sentence(str(error).partition(" - at ")[0])) from error
    except UnicodeDecodeError as error:
        raise Invalid("body", f"this is not JSON in UTF-8 ({error})") from error
    if _is_deeper(decoded, MAX_METADATA_DEPTH):
        raise Invalid("metadata", f"it is nested more than {MAX_METADATA_DEPTH} deep")
    if sum(1 for _ in _values(decoded)) > MAX_METADATA_VALUES:
        raise Invalid("metadata", f"it has more than {MAX_METADATA_VALUES} values")


def _number(written: str) -> float:
    """Read a number of metadata. Raises ValueError if PostgreSQL may not be able to store it."""
    value, exponent = float(written), written.lower().partition("e")[2] or "0"
    if isinf(value) or len(written) > MAX_DIGITS or abs(int(exponent)) > MAX_EXPONENT:
        raise ValueError(f"number out of range: it has more than {MAX_DIGITS} digits, or its exponent is too large")
    return value


_METADATA = msgspec.json.Decoder(dict[str, Any] | None, float_hook=_number)


def _values(value: object) -> Iterator[object]:
    """Yield a value and all within it."""
    yield value
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _values(inner)


def _is_deeper(value: object, levels: int) -> bool:
    """Return whether objects and lists are nested in more than that many levels. Deeper levels are not read."""
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deeper(one, levels - 1) for one in inner)


class MetadataSchema(OpenAPISchemaPlugin):
    """Describes metadata in the OpenAPI document, which would say nothing about its type."""

    @staticmethod
    def is_plugin_supported_type(value: Any) -> bool:
        return value is Raw

    def to_openapi_schema(self, field_definition: FieldDefinition, schema_creator: Any) -> Schema:
        return Schema(one_of=[Schema(type=OpenAPIType.OBJECT), Schema(type=OpenAPIType.NULL)])


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


class LineView(msgspec.Struct):
    """Units of one item within a reservation."""

    item_id: ItemId
    sku: Sku
    quantity: Quantity


class ReservationView(msgspec.Struct):
    """A reservation. While it is PENDING, it is a hold that expires at `expires_at`. Timestamps are in UTC.

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
            expires_at=reservation.expires_at,
            guest=None if reservation.guest_id is None else Guest(reservation.guest_id),
            source=reservation.source,
            note=reservation.note,
            metadata=_none() if reservation.metadata is None else Raw(reservation.metadata),
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
    """Reservations, the newest first. If there is a `next_cursor`, there may be more: send it back as `cursor`.

    A page may have fewer reservations than `limit`, even none, and a `next_cursor`.
    """

    reservations: list[ReservationView]
    next_cursor: str | None

    @classmethod
    def of(cls, page: Page) -> Self:
        shown = [ReservationView.of(one) for one in page.reservations]
        return cls(shown, None if page.next_before is None else str(page.next_before))


def render_reservation(reservation: Reservation) -> str:
    """Return a reservation as JSON."""
    return msgspec.json.encode(ReservationView.of(reservation)).decode()
