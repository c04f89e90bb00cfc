"""Calls: what all methods have in common. They are received, answered or refused, and counted here."""

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from api.grpc import errors
from api.grpc.groups import Group
from api.grpc.time_limits import TimeLimit
from api.http import request_ids
from api.senders import PRINTABLE, key_in, principal_named
from domain.access import ANONYMOUS, Principal
from domain.idempotency import Key
from domain.runtime.errors import Busy, Invalid
from domain.runtime.metrics import Counter

T = TypeVar("T")
M = TypeVar("M", bound=Message)
B = TypeVar("B", bound=Callable[..., Any])

if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]

CLIENT_ID, KEY, REQUEST_ID, TRACE = "x-client-id", "idempotency-key", "x-request-id", "traceparent"

#: The rule by which a payload's hash is made, and how many digits of it are kept: see api/http/payloads.
RULE, DIGITS = "v1", 60

CALLS = Counter(
    "holdfast_grpc_calls",
    "Calls by method and status code. Alert on any INTERNAL or UNKNOWN, and if UNAVAILABLE lasts for a minute.",
    ["method", "code"],
)


class Call:
    """A call that is being answered. Its metadata is read when it is asked for, and may raise Invalid."""

    def __init__(self, context: grpc.ServicerContext) -> None:
        self.context = context
        self._metadata = context.invocation_metadata()
        sent = _first(self._metadata, REQUEST_ID)
        self.request_id = request_ids.begin({} if sent is None else {b"x-request-id": sent.encode()})
        self._trailers: tuple[tuple[str, str | bytes], ...] = ((REQUEST_ID, self.request_id),)
        context.set_trailing_metadata(self._trailers)

    @property
    def principal(self) -> Principal:
        """Its sender."""
        return principal_named(self.value(CLIENT_ID), CLIENT_ID)

    def key(self, operation: str) -> Key | None:
        """Return its idempotency key, for its sender and this operation."""
        written = self.value(KEY)
        return None if written is None else Key(self.principal.client_id, operation, key_in(written, KEY))

    def trace(self) -> dict[str, str]:
        """Return what connects events to the call: the W3C trace context that its client sent, and its id."""
        sent = _first(self._metadata, TRACE)
        trace = {TRACE: sent} if sent is not None and PRINTABLE.fullmatch(sent) else {}
        return {**trace, "correlation_id": self.request_id}

    def value(self, name: str) -> str | None:
        """Return the value of this name in the metadata, or None. Raises Invalid if there are several."""
        values = [value for given, value in self._metadata if given == name]
        if len(values) > 1:
            raise Invalid(name, "this metadata is given more than once")
        return _text(values[0]) if values else None

    def result(self, future: Future[T]) -> T:
        """Wait for a result, until the call ends: its client may cancel it, or its deadline pass.

        Raises CancelledError then, and nothing is done that has not begun.
        """

        def cancel() -> None:
            future.cancel()

        if not self.context.add_callback(cancel):
            cancel()
        return future.result()

    def note_replay(self) -> None:
        """Tell the client that it gets the stored answer to an earlier call."""
        self._trailers += (("idempotency-replayed", "true"),)
        self.context.set_trailing_metadata(self._trailers)

    def fail(self, method: str, error: Exception) -> NoReturn:
        """Count the call, and end it with the status that this error leads to."""
        status = errors.status_of(error)
        count(method, status.code.name)
        self.context.set_trailing_metadata((*self._trailers, *status.trailing_metadata))
        self.context.abort(status.code, status.details)


def client_of(metadata: Any) -> str:
    """Return the name of the client that has sent this metadata, without any checks."""
    return _first(metadata, CLIENT_ID) or ANONYMOUS.client_id


def _first(metadata: Any, name: str) -> str | None:
    return next((_text(value) for given, value in metadata if given == name), None)


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")


def hash_of(request: Message, *more: object) -> str:
    """Return the hash of a request, and of what else its metadata asks for."""
    given = repr(more).encode() + request.SerializeToString(deterministic=True)
    return f"{RULE}:{hashlib.sha256(given).hexdigest()[:DIGITS]}"


def unary(method: str, of: type[M], act: Callable[[Call, M], bytes], group: Group) -> "Handler":
    """Return the handler of a method that takes one message and answers with one."""

    def answer(messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        with group.place(context, client_of(context.invocation_metadata())):
            call = Call(context)
            try:
                answered = act(call, received(messages, context, of, group.receiving))
            except (CancelledError, grpc.RpcError):
                count(method, "CANCELLED")
                return b""  # to nobody
            # Every error is answered.
            except Exception as error:
                call.fail(method, error)
        count(method, "OK")
        return answered

    # To its client it is the same as a method that takes exactly one message. The library would wait for that one
    # itself, for ever.
    return grpc.stream_unary_rpc_method_handler(on(group.threads, answer))


def streaming(method: str, of: type[M], act: Callable[[Call, M], Iterator[bytes]], group: Group) -> "Handler":
    """Return the handler of a method that takes one message and answers with any number."""

    def answer(messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        with group.place(context, client_of(context.invocation_metadata())):
            call, code = Call(context), "CANCELLED"
            try:
                yield from act(call, received(messages, context, of, group.receiving))
                code = "OK"
            except grpc.RpcError:
                return  # its client has gone
            # Every error is answered.
            except Exception as error:
                code = ""
                call.fail(method, error)
            finally:
                if code:
                    count(method, code)

    return grpc.stream_stream_rpc_method_handler(on(group.threads, answer))


def on(threads: ThreadPoolExecutor, behaviour: B) -> B:
    """Have calls answered by these threads."""
    behaviour.experimental_thread_pool = threads  # type: ignore[attr-defined]
    return behaviour


def received(messages: Iterator[bytes], context: grpc.ServicerContext, of: type[M], receiving: TimeLimit) -> M:
    """Return the message of a call. Raises Invalid if it has none that can be read."""
    with receiving.step(context):
        message = next(messages, None)
    if message is None:
        raise Invalid("request", "it has no message")
    try:
        return of.FromString(message)
    except DecodeError:
        raise Invalid("request", f"its message is no {of.DESCRIPTOR.name}, or has a text that is not UTF-8") from None


def refusing(method: str, threads: ThreadPoolExecutor) -> "Handler":
    """Return the handler of a call of this method for which there is no place."""

    def answer(_: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        Call(context).fail(method, Busy())

    return grpc.stream_stream_rpc_method_handler(on(threads, answer))


def count(method: str, code: str) -> None:
    """Count a call that was answered with this code."""
    _calls(method, code).inc()


@cache
def _calls(method: str, code: str) -> Counter:
    return CALLS.labels(method, code)
