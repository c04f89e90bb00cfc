"""A client of the gRPC service that is used as the one over HTTP, so that a proof can use both alike."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status

from api.grpc.proto import reservation_pb2 as proto
from api.grpc.proto.reservation_pb2_grpc import ReservationServiceStub
from tests.proofs.load import TIMEOUT_SECONDS, Response

#: What HTTP answers instead. With any other code, UNKNOWN or INTERNAL, the call raises its error, and the proof fails.
STATUS_OF = {grpc.StatusCode.FAILED_PRECONDITION: 409, grpc.StatusCode.UNAVAILABLE: 503}


class GrpcClient:
    """One connection to a gRPC service. It reserves one unit at a time."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])
        self._service = ReservationServiceStub(self._channel)

    def __enter__(self) -> "GrpcClient":
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def post(self, path: str, body: Mapping[str, Any] | None = None, *, key: str | None = None) -> Response:
        """Call the method that does what this request would do over HTTP."""
        metadata = [("idempotency-key", key)] if key else []
        if path == "/reservations":
            assert body is not None
            return _response(201, self._service.reserve, _reserving(body), metadata)
        _, _, reservation_id, operation = path.split("/")
        method, request = {
            "confirm": (self._service.confirm, proto.ConfirmRequest(id=reservation_id)),
            "cancel": (self._service.cancel, proto.CancelRequest(id=reservation_id)),
        }[operation]
        return _response(200, method, request, metadata)


def _reserving(body: Mapping[str, Any]) -> proto.ReserveRequest:
    assert body["quantity"] == 1, "one reservation over gRPC is for one unit"
    start, end = Timestamp(), Timestamp()
    start.FromDatetime(datetime.fromisoformat(body["start"]))
    end.FromDatetime(datetime.fromisoformat(body["end"]))
    wanted = proto.Reservation(user_id="ann", resource_id=body["sku"], start=start, end=end)
    return proto.ReserveRequest(reservation=wanted)


def _response(status: int, method: Any, request: Any, metadata: list[tuple[str, str]]) -> Response:
    try:
        answer, call = method.with_call(request, timeout=TIMEOUT_SECONDS, metadata=metadata)
    except grpc.RpcError as error:
        return _refusal(error)
    body = {"id": answer.reservation.id, "status": proto.ReservationStatus.Name(answer.reservation.status)}
    return Response(status, json.dumps(body), ("idempotency-replayed", "true") in call.trailing_metadata())


def _refusal(error: Any) -> Response:
    if error.code() not in STATUS_OF:
        raise error
    info = ErrorInfo()
    assert any(detail.Unpack(info) for detail in rpc_status.from_call(error).details)
    body: dict[str, object] = {"type": "/problems/" + info.reason.lower().replace("_", "-")}
    if "available_quantity" in info.metadata:
        body["available_quantity"] = int(info.metadata["available_quantity"])
    return Response(STATUS_OF[error.code()], json.dumps(body), replayed=False)
