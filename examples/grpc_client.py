"""A small client of the gRPC service: book a room for next Friday, be refused, and take what is offered instead.

Run it beside bin/up: bin/python -m examples.grpc_client "$(bin/token --role staff)". A project of your own generates
the two modules from api/grpc/proto/reservation.proto.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self
from uuid import uuid4

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status

from api.grpc.proto import reservation_pb2 as proto
from api.grpc.proto.reservation_pb2_grpc import ReservationServiceStub

#: No call waits for longer. A call without a deadline may wait for ever, for a server that hangs.
TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True)
class Booked:
    """Time of a resource that is reserved."""

    id: str
    user_id: str
    resource_id: str
    start: datetime
    end: datetime
    status: str

    @classmethod
    def of(cls, message: proto.Reservation) -> Self:
        return cls(
            id=message.id,
            user_id=message.user_id,
            resource_id=message.resource_id,
            start=message.start.ToDatetime(UTC),
            end=message.end.ToDatetime(UTC),
            status=proto.ReservationStatus.Name(message.status),
        )


@dataclass(frozen=True)
class Alternative:
    """What is free instead."""

    resource_id: str
    start: datetime
    end: datetime


class NotFree(Exception):
    """Raised when time is not free, with what is free instead."""

    def __init__(self, message: str, alternatives: list[Alternative]) -> None:
        super().__init__(message)
        self.alternatives = alternatives


class Client:
    """Reserves time of resources. Its token, or API key, tells the service who sends its calls."""

    def __init__(self, channel: grpc.Channel, token: str) -> None:
        self._service = ReservationServiceStub(channel)
        self._sender = ("authorization", f"Bearer {token}")

    def reserve(self, user_id: str, resource_id: str, start: datetime, end: datetime, *, key: str) -> Booked:
        """Reserve time. Whoever lost the answer asks again, with the same key. Raises NotFree."""
        wanted = proto.Reservation(user_id=user_id, resource_id=resource_id, start=_written(start), end=_written(end))
        metadata = [self._sender, ("idempotency-key", key)]
        try:
            answer = self._service.reserve(
                proto.ReserveRequest(reservation=wanted), timeout=TIMEOUT_SECONDS, metadata=metadata
            )
        except grpc.RpcError as error:
            raise _refusal_of(error) from error
        return Booked.of(answer.reservation)

    def confirm(self, reservation_id: str) -> Booked:
        """Confirm a reservation that is PENDING."""
        request = proto.ConfirmRequest(id=reservation_id)
        answer = self._service.confirm(request, timeout=TIMEOUT_SECONDS, metadata=[self._sender])
        return Booked.of(answer.reservation)

    def booked(self, resource_id: str, start: datetime, end: datetime) -> Iterator[Booked]:
        """Yield what is booked of a resource within a time, in order of the start."""
        request = proto.QueryRequest(resource_id=resource_id, start=_written(start), end=_written(end))
        for message in self._service.Query(request, metadata=[self._sender]):
            yield Booked.of(message)


def _refusal_of(error: grpc.RpcError) -> Exception:
    """Return NotFree if a call was refused for that reason, or else the error itself."""
    status = rpc_status.from_call(error)
    info = ErrorInfo()
    if status is None or not any(detail.Unpack(info) for detail in status.details) or info.reason != "NOT_FREE":
        return error
    offered = json.loads(info.metadata.get("alternatives", "[]"))
    return NotFree(
        status.message,
        [Alternative(one["sku"], *(datetime.fromisoformat(one[at]) for at in ("start", "end"))) for one in offered],
    )


def _written(moment: datetime) -> Timestamp:
    written = Timestamp()
    written.FromDatetime(moment)
    return written


def main(token: str, address: str = "127.0.0.1:50051") -> None:
    """Book a room for next Friday, twice."""
    today = datetime.now(UTC).replace(hour=9, minute=0, second=0, microsecond=0)
    start = today + timedelta(days=(4 - today.weekday()) % 7 or 7)
    end = start + timedelta(hours=2)
    with grpc.insecure_channel(address) as channel:
        client = Client(channel, token)
        try:
            print(client.reserve("ann", "room-1", start, end, key=str(uuid4())))
            print(client.reserve("ben", "room-1", start, end, key=str(uuid4())))
        except NotFree as refused:
            print(refused)
            for free in refused.alternatives[:1]:
                print(client.reserve("ben", free.resource_id, free.start, free.end, key=str(uuid4())))
        week = timedelta(days=7)
        print(len([*client.booked("room-1", start - week, start + week)]), "booked around that time")


if __name__ == "__main__":
    main(*sys.argv[1:])
