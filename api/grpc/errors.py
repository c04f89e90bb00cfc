"""Errors as gRPC statuses: one table of codes and words, and the details that clients decode.

Each status has the message `google.rpc.Status` in the trailer `grpc-status-details-bin`. Its details are an ErrorInfo
with the facts, and what `google/rpc/error_details.proto` has for errors of that kind.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

import grpc
import structlog
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import code_pb2
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, PreconditionFailure, ResourceInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status
from sqlalchemy.exc import SQLAlchemyError

from api.waits import wait_seconds
from domain.runtime import errors
from domain.runtime.database_errors import trouble
from domain.runtime.errors import (
    Conflict,
    DatabaseUnavailable,
    HoldfastError,
    InTheWay,
    Invalid,
    NotFound,
    NotFree,
    OutsideOpeningHours,
    RateLimited,
    Unavailable,
)
from domain.runtime.schema import lacks_schema

#: The domain of the reasons in ErrorInfo.
DOMAIN = "holdfast"

#: A refusal shows so many of what is in the way, or of the days with their hours. Details are sent as headers, of which
#: many clients take 8 kB at most.
MOST_SHOWN = 6

log = structlog.get_logger()


class UnknownService(Exception):
    """Raised when the health of a service is asked for that is not served here."""


@dataclass(frozen=True, slots=True)
class Kind:
    """The code of an error, one of google.rpc.Code, and what its message says, with the facts of the error.

    `about` is the type of what was not found.
    """

    code: int
    text: str
    about: str = ""


def _invalid(text: str) -> Kind:
    return Kind(code_pb2.INVALID_ARGUMENT, f"{text} Nothing was changed; correct it and send it again.")


def _not_found(about: str, text: str) -> Kind:
    return Kind(code_pb2.NOT_FOUND, text, about)


def _conflict(text: str) -> Kind:
    return Kind(code_pb2.FAILED_PRECONDITION, f"{text} Nothing was changed.")


def _unavailable(text: str) -> Kind:
    return Kind(code_pb2.UNAVAILABLE, text)


_SEND_AGAIN = "Send the same call again later, with the same idempotency-key."

OF_ERRORS: Mapping[type[HoldfastError], Kind] = {
    errors.Invalid: _invalid("{field}: {reason}."),
    errors.IllegalTransition: _invalid("The booking is {status}, and can't become {to}. It can become {allowed}."),
    errors.NotAuthenticated: Kind(
        code_pb2.UNAUTHENTICATED,
        "Nobody knows who has sent this: {reason}. Nothing was changed."
        " Send the metadata `authorization`, with Bearer and a token or an API key.",
    ),
    errors.NotAllowed: Kind(
        code_pb2.PERMISSION_DENIED,
        "None of your roles may do this ({operation}), or not on what belongs to others. Nothing was changed.",
    ),
    errors.UnknownItem: _not_found("resource", "No resource has the id {item}."),
    errors.UnknownVenue: _not_found("venue", "No calendar belongs to the venue {venue}."),
    errors.UnknownSlot: _not_found("slot", "No slot has the id {slot_id}."),
    errors.UnknownReference: _not_found("booking", "No booking has the reference {reference}."),
    errors.UnknownReservation: _not_found("reservation", "No reservation has the id {reservation_id}."),
    errors.UnknownDestination: _not_found(
        "destination", "No destination has the name {destination}. Known destinations: {known}."
    ),
    errors.NotInOutbox: _not_found(
        "event", "The outbox has no row of an event or a reservation with the id {subject_id}."
    ),
    errors.NoFeed: Kind(code_pb2.NOT_FOUND, "There is no feed: no destination has the URL feed:."),
    errors.PositionGone: _not_found(
        "position", "The events after position {after} were deleted from the feed; the oldest one is at {oldest}."
    ),
    errors.UnknownGuest: _not_found("guest", "The reservation {reservation_id} has no guest with personal data."),
    errors.GuestForgotten: _not_found(
        "guest", "The guest of the reservation {reservation_id} was forgotten at {forgotten_at}."
    ),
    errors.SoldOut: _conflict("Requested {asked} of {sku}; {available_quantity} available."),
    errors.SlotTaken: _conflict("Somebody else has the slot {slot_id}, or it was withdrawn."),
    errors.SlotHasBegun: _conflict("The slot {slot_id} has begun at {slot_start}."),
    errors.SlotsOverlap: _conflict(
        "The provider has the slot {slot_id} from {slot_start} until {slot_end}, at the same time."
    ),
    errors.NotFree: _conflict(
        "Requested {asked} of {sku} from {start} to {end}; {available_quantity} free throughout."
    ),
    errors.OutsideOpeningHours: _conflict(
        "{sku} is closed for some of that time. The detail opening_hours has its hours by date, in {time_zone}."
    ),
    errors.CapacityInUse: _conflict("The capacity of {sku} cannot be {capacity}: {in_use} are in use at some moment."),
    errors.SkuTaken: _conflict("A resource with the id {sku} exists already."),
    errors.ReferenceTaken: _conflict("Another reservation of the client has the reference {external_reference}."),
    errors.InsufficientAvailableStock: _conflict(
        "The stock of {sku} cannot change by {adjust_quantity_by}: {available_quantity} available."
    ),
    errors.CalendarChanged: _conflict("The venue or the time zone of {sku} has just been changed. Send it again."),
    errors.WrongStatus: _conflict("The reservation is {status}, and in this status it cannot be changed in this way."),
    errors.HoldExpired: _conflict("The reservation expired at {expired_at}. Make a new one."),
    errors.HoldTooLong: _conflict("The reservation may be PENDING until {latest_expires_at} at most."),
    errors.StaleVersion: _conflict("Version {expected_version} was expected, and it is {current_version}."),
    errors.StalePrecondition: _conflict("The ETags {if_match} were expected, and it is {current_etag}."),
    errors.IdempotencyKeyReused: _conflict(
        "The idempotency-key {key} was used for another call. Use another key, or send the first call again."
    ),
    errors.NoKeys: _conflict("No personal data is kept here: there are no keys to encrypt it (PII_KEYS)."),
    errors.Busy: _unavailable(
        f"There are too many calls, or another one has locked what this one needs. Nothing was changed. {_SEND_AGAIN}"
    ),
    errors.TooManyRequests: Kind(
        code_pb2.RESOURCE_EXHAUSTED,
        f"The limit {{limit}} allows {{quota}} calls within {{seconds}} s. Nothing was changed. {_SEND_AGAIN}",
    ),
    errors.FailedTooOften: Kind(
        code_pb2.RESOURCE_EXHAUSTED,
        "From your network address came more than {quota} calls within {seconds} s without valid credentials (the limit"
        " is {limit}). Nothing was changed. Whoever has valid credentials is served all the same: renew yours.",
    ),
    errors.DatabaseUnavailable: _unavailable(f"The database can't be reached. Nothing was changed. {_SEND_AGAIN}"),
    errors.KeysUnavailable: _unavailable(
        f"The keys that credentials are checked by can't be read at present. Nothing was changed. {_SEND_AGAIN}"
    ),
    errors.OutcomeUnknown: _unavailable(
        "The connection to the database broke before it answered: the change may have been made, or not."
        f" {_SEND_AGAIN} You then get the answer to the first one."
    ),
    errors.GuestUnreadable: _unavailable(
        "The key that the personal data was encrypted by is not there. Whoever runs Holdfast has to put it back."
    ),
    errors.PersonalDataUnavailable: _unavailable(
        f"The service that keeps the keys of personal data can't be reached. {_SEND_AGAIN}"
    ),
    errors.SearchIncomplete: _unavailable(
        "Nobody was found, but not all guests can be found without the key {key_id}. Whoever runs Holdfast has to put"
        " it back."
    ),
}

BUG = Kind(code_pb2.INTERNAL, "An error in Holdfast. Its log has it, with the x-request-id of this call.")


def status_of(error: Exception) -> grpc.Status:
    """Return the status of a call that has failed with this error."""
    if isinstance(error, UnknownService):
        return _status(Status(code=code_pb2.NOT_FOUND, message=f"No service has the name {error}."))
    if isinstance(error, SQLAlchemyError):
        error = _of_database(error)
    if not isinstance(error, HoldfastError):
        log.error("call.failed", exc_info=error)
        return _status(Status(code=BUG.code, message=BUG.text))
    return _status(description_of(error))


def _status(message: Status) -> grpc.Status:
    status: grpc.Status = rpc_status.to_status(message)
    return status


def _of_database(error: SQLAlchemyError) -> Exception:
    """Return what an error of the database means for the client, or the error itself if it is our own fault."""
    if lacks_schema(error):
        log.error("call.not_migrated", error=str(error).splitlines()[0], advice="run bin/migrate")
        return DatabaseUnavailable()
    return trouble(error) or error


def description_of(error: HoldfastError) -> Status:
    """Return the message that describes an error of the domain."""
    kind = OF_ERRORS[type(error)]
    text = kind.text.format(**{name: _plain(value) for name, value in vars(error).items()})
    return Status(code=kind.code, message=text, details=[_packed(detail) for detail in _details(error, text)])


def _packed(detail: Message) -> Packed:
    packed = Packed()
    packed.Pack(detail)
    return packed


def _details(error: HoldfastError, text: str) -> Iterator[Message]:
    yield ErrorInfo(reason=reason_of(type(error)), domain=DOMAIN, metadata=_facts(error))
    match error:
        case Invalid(field, reason):
            yield BadRequest(field_violations=[BadRequest.FieldViolation(field=field, description=reason)])
        case NotFound():
            named = str(next(iter(vars(error).values())))
            yield ResourceInfo(resource_type=OF_ERRORS[type(error)].about, resource_name=named)
        case Conflict():
            yield PreconditionFailure(violations=_violations(error, text))
        case Unavailable():
            yield RetryInfo(retry_delay=Duration(seconds=wait_seconds(error)))


def reason_of(error: type[HoldfastError]) -> str:
    """Return the stable name of an error, such as WRONG_STATUS."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", error.__name__).upper()


def _violations(error: Conflict, text: str) -> list[PreconditionFailure.Violation]:
    """Return what is in the way, if it is known, or that it is refused."""
    said = list(map(_in_the_way, _shown(error) or ())) if isinstance(error, NotFree) else []
    kind, subject = reason_of(type(error)), _subject(error)
    return [PreconditionFailure.Violation(type=kind, subject=subject, description=one) for one in said or [text]]


def _in_the_way(conflict: InTheWay) -> str:
    lapses = f" It may lapse at {_plain(conflict.lapses_at)}." if conflict.lapses_at else ""
    return f"{conflict.quantity} taken from {_plain(conflict.start)} to {_plain(conflict.end)}.{lapses}"


def _subject(error: Conflict) -> str:
    """Return what the conflict is about: the id of a resource or of a reservation, if the error knows one."""
    facts = vars(error)
    return str(facts.get("sku") or facts.get("reservation_id") or "")


def _facts(error: HoldfastError) -> dict[str, str]:
    """Return the fields of an error that are values, as text. Lists are JSON, as the HTTP API shows them."""
    if isinstance(error, Invalid | Unavailable) and not isinstance(error, RateLimited):
        return {}
    facts = {name: _plain(value) for name, value in vars(error).items() if isinstance(value, _VALUES)}
    if isinstance(error, NotFree):
        lists = {"conflicts": _shown(error), "alternatives": error.alternatives}
        facts |= {name: _json([one._asdict() for one in ones]) for name, ones in lists.items() if ones is not None}
    if isinstance(error, OutsideOpeningHours):
        facts["opening_hours"] = _json(dict(islice(error.opening_hours.items(), MOST_SHOWN)))
    return facts


def _shown(error: NotFree) -> Sequence[InTheWay] | None:
    return error.conflicts if error.conflicts is None else error.conflicts[:MOST_SHOWN]


def _json(value: object) -> str:
    return json.dumps(value, default=_plain)


_VALUES = (str, int, datetime)


def _plain(value: object) -> str:
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else str(value)
