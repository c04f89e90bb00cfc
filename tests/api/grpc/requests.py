"""What tests ask of the service, and what they get."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from api.grpc.proto import reservation_pb2 as proto

#: Tests reserve hours from this moment on.
NOON = datetime(2030, 1, 31, 12, tzinfo=UTC)

UNKNOWN_ID = "01943bb1-8a00-7e3c-9d54-3f1c0b6a7e21"


#: A moment, or the number of hours that it is after noon.
Moment = float | Timestamp | None


def hour(number: float) -> Timestamp:
    """Return the moment so many hours after noon."""
    moment = Timestamp()
    moment.FromDatetime(NOON + timedelta(hours=number))
    return moment


def a_reservation(start: Moment = 0, end: Moment = 1, **fields: Any) -> proto.Reservation:
    """A reservation between two moments. A field that is None is left out."""
    times = {"start": _timestamp(start), "end": _timestamp(end)}
    return proto.Reservation(**{"user_id": "ann", "resource_id": "room-1", **times, **fields})


def _timestamp(moment: Moment) -> Timestamp | None:
    return hour(moment) if isinstance(moment, int | float) else moment


def reserving(start: Moment = 0, end: Moment = 1, **fields: Any) -> proto.ReserveRequest:
    """A request for such a reservation."""
    return proto.ReserveRequest(reservation=a_reservation(start, end, **fields))


@dataclass(frozen=True)
class Refused:
    """The status of a call that has failed, with its details by type."""

    code: grpc.StatusCode
    text: str
    details: dict[str, Any]
    trailers: dict[str, str | bytes]


def refused(call: Callable[..., Any], *arguments: Any, **options: Any) -> Refused:
    """Make a call that fails. Return its status, as any client can decode it."""
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, **options)
    return status_of(caught.value)


def status_of(error: Any) -> Refused:
    status = rpc_status.from_call(error)
    details = {}
    for packed in status.details if status else ():
        name = packed.TypeName().removeprefix("google.rpc.")
        details[name] = getattr(error_details_pb2, name)()
        packed.Unpack(details[name])
    return Refused(error.code(), error.details(), details, dict(error.trailing_metadata() or ()))
