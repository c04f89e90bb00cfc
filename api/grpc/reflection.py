"""The standard reflection service, from which tools such as grpcurl learn what is served."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import grpc
from grpc_reflection.v1alpha.reflection import SERVICE_NAME, ReflectionServicer
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from api.grpc.calls import on
from api.grpc.groups import Group

if TYPE_CHECKING:
    from api.grpc.calls import Handlers

SERVICE = SERVICE_NAME


def reflecting(services: Sequence[str], group: Group) -> "Handlers":
    """Return the handlers that describe these services."""
    servicer = ReflectionServicer(services)

    def answer(
        client: str, messages: Iterator[ServerReflectionRequest], context: grpc.ServicerContext
    ) -> Iterator[ServerReflectionResponse]:
        with group.place(context, client):
            yield from servicer.ServerReflectionInfo(_in_time(messages, context, group), context)

    return lambda client: grpc.stream_stream_rpc_method_handler(
        on(group.threads, partial(answer, client)),
        request_deserializer=ServerReflectionRequest.FromString,
        response_serializer=ServerReflectionResponse.SerializeToString,
    )


def _in_time(
    messages: Iterator[ServerReflectionRequest], context: grpc.ServicerContext, group: Group
) -> Iterator[ServerReflectionRequest]:
    """Yield the messages of a call, each of which must come in time."""
    while True:
        with group.receiving.step(context):
            message = next(messages, None)
        if message is None:
            return
        yield message
