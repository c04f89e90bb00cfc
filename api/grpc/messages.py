"""The messages of the contract: what a request asks for, in terms of the domain, and reservations as messages."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp

from api.grpc.proto import reservation_pb2 as proto
from domain.calendars import Period
from domain.reservations import Reservation
from domain.reservations.lifecycle import Status
from domain.runtime.errors import Invalid

#: The statuses by their numbers in the contract, where 0 is UNKNOWN.
NUMBER_OF = {status: proto.ReservationStatus.Value(status.value) for status in Status}
STATUS_OF: Mapping[int, Status] = {number: status for status, number in NUMBER_OF.items()}

MAX_ID_CHARACTERS = 64
MAX_NOTE_CHARACTERS = 2_000

#: Of the seconds of a Timestamp: those from the year 1 to the year 9999. Source: google/protobuf/timestamp.proto.
SECONDS = range(-62_135_596_800, 253_402_300_800)
NANOS = range(1_000_000_000)
NANOS_OF_MICROSECOND = 1_000

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def reservation_id_of(written: str) -> UUID:
    """Return the id of a reservation. Raises Invalid."""
    if not _UUID.fullmatch(written):
        raise Invalid("id", "it must be a UUID, such as 01943bb1-8a00-7e3c-9d54-3f1c0b6a7e21")
    return UUID(written)


def name_in(field: str, written: str) -> str:
    """Return the name of a user or of a resource. Raises Invalid."""
    if not written:
        raise Invalid(field, "it is required")
    return text_in(field, written, MAX_ID_CHARACTERS)


def text_in(field: str, written: str, most: int) -> str:
    """Return a text of up to that many characters. Raises Invalid."""
    if len(written) > most:
        raise Invalid(field, f"it has more than {most} characters")
    if "\0" in written:
        raise Invalid(field, "it has a NUL character, which can't be stored")
    return written


def status_in(field: str, number: int) -> Status | None:
    """Return the status of that number, or None for UNKNOWN. Raises Invalid."""
    if number and number not in STATUS_OF:
        raise Invalid(field, f"no status has the number {number}")
    return STATUS_OF.get(number)


def period_of(reservation: proto.Reservation) -> Period:
    """Return the period of a reservation to make. Raises Invalid."""
    for bound in ("start", "end"):
        if not reservation.HasField(bound):
            raise Invalid(bound, "it is required")
    return Period(_exact("start", reservation.start), _exact("end", reservation.end))


def _exact(field: str, written: Timestamp) -> datetime:
    if written.nanos % NANOS_OF_MICROSECOND:
        raise Invalid(field, "it must be whole microseconds: its nanos a multiple of 1000")
    return instant_in(field, written)


def instant_in(field: str, written: Timestamp, *, round_up: bool = False) -> datetime:
    """Return an instant in whole microseconds, by default rounded down. Raises Invalid."""
    if written.seconds not in SECONDS or written.nanos not in NANOS:
        raise Invalid(field, "it must be from 0001-01-01 to 9999-12-31, and its nanos from 0 to 999999999")
    microseconds, rest = divmod(written.nanos, NANOS_OF_MICROSECOND)
    if round_up and rest and written.seconds < SECONDS[-1]:  # the last second is rounded down: no datetime is later
        microseconds += 1
    return EPOCH + timedelta(seconds=written.seconds, microseconds=microseconds)


def timestamp_of(instant: datetime) -> Timestamp:
    """Return an instant as a message."""
    seconds, microseconds = divmod((instant - EPOCH) // MICROSECOND, 1_000_000)
    return Timestamp(seconds=seconds, nanos=microseconds * NANOS_OF_MICROSECOND)


def message_of(reservation: Reservation) -> proto.Reservation:
    """Return a reservation as a message. One of several items is shown with the first of them."""
    period: Any = reservation.period
    return proto.Reservation(
        id=str(reservation.id),
        user_id=reservation.guest_id or "",
        status=reservation.status.value,
        resource_id=reservation.sku,
        start=period and timestamp_of(period.start),
        end=period and timestamp_of(period.end),
        note=reservation.note or "",
    )
