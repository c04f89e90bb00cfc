"""The standard reflection service, from which tools such as grpcurl learn what is served."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import grpc
from grpc_reflection.v1alpha.reflection import SERVICE_NAME, ReflectionServicer
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from api.grpc.calls import client_of, on
from api.grpc.groups import Group

if TYPE_CHECKING:
    from api.grpc.calls import Handler

SERVICE = SERVICE_NAME


def reflecting(services: Sequence[str], group: Group) -> "Handler":
    """Return the handler that describes these services."""
    servicer = ReflectionServicer(services)

    def answer(
        messages: Iterator[ServerReflectionRequest], context: grpc.ServicerContext
    ) -> Iterator[ServerReflectionResponse]:
        with group.place(context, client_of(context.invocation_metadata())):
            yield from servicer.ServerReflectionInfo(_in_time(messages, context, group), context)

    return grpc.stream_stream_rpc_method_handler(
        on(group.threads, answer),
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
