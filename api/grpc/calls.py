"""Calls: what all methods have in common. They are received, answered or refused, and counted here."""

import hashlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cache, partial
from threading import Semaphore
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar
from urllib.parse import unquote

import grpc
from google.protobuf.message import DecodeError, Message

from api.auth.gate import WAIT_SECONDS, Gate, acting_for
from api.auth.limits.addresses import Address
from api.auth.limits.limits import Exceeded
from api.auth.refreshed import Missing
from api.grpc import errors
from api.grpc.groups import Group
from api.grpc.time_limits import TimeLimit
from api.http import request_ids
from api.senders import TRACE_CONTEXT, client_named, key_in
from domain.access import ANONYMOUS, OPEN, RIGHTS, Principal, Reach, reach_of
from domain.idempotency import Key
from domain.runtime.errors import Busy, Invalid, KeysUnavailable, NotAllowed
from domain.runtime.metrics import Counter

T = TypeVar("T")
M = TypeVar("M", bound=Message)
B = TypeVar("B", bound=Callable[..., Any])

if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]
    #: Return the handler of a call, by the client that has sent it.
    Handlers = Callable[[str], Handler]

AUTHORIZATION, CLIENT_ID, KEY, FORWARDED = "authorization", "x-client-id", "idempotency-key", "x-forwarded-for"
REQUEST_ID, TRACE = "x-request-id", "traceparent"

#: The rule by which a payload's hash is made, and how many digits of it are kept: see api/http/payloads.
RULE, DIGITS = "v1", 60

#: How often the credentials of a long call are checked again. That is done in memory.
CHECK_SECONDS = 0.5

CALLS = Counter(
    "holdfast_grpc_calls",
    "Calls by method and status code. Alert on any INTERNAL or UNKNOWN, and if UNAVAILABLE lasts for a minute.",
    ["method", "code"],
)


class Call:
    """A call that is being answered. Its metadata is read when it is asked for, and may raise Invalid."""

    principal: Principal
    reach: Reach
    _gate: Gate
    _checked_at: float

    def __init__(self, context: grpc.ServicerContext) -> None:
        self.context = context
        self._metadata = context.invocation_metadata()
        sent = _first(self._metadata, REQUEST_ID)
        self.request_id = request_ids.begin({} if sent is None else {b"x-request-id": sent.encode()})
        self._trailers: tuple[tuple[str, str | bytes], ...] = ((REQUEST_ID, self.request_id),)
        context.set_trailing_metadata(self._trailers)

    def authenticate(self, access: "Access", waits: Semaphore) -> None:
        """Find out who has sent it, and what that principal may use the operation on.

        It may wait for the keys of credentials, if one of `waits` is left.

        Raises RateLimited, NotAuthenticated, KeysUnavailable, NotAllowed, Invalid.
        """
        self._gate, self._checked_at = access.gate, time.monotonic()
        try:
            self.principal = self._limited(access.gate, access.operation, waits)
        except Exceeded as exceeded:
            raise exceeded.error from None
        self.reach = reach_of(self.principal, access.operation)

    def require_credentials(self) -> None:
        """Raise NotAuthenticated if its credentials, which have let it in, have expired or were revoked since."""
        now = time.monotonic()
        if now > self._checked_at + CHECK_SECONDS:
            self._checked_at = now
            if lapse := self._gate.lapse_of(self.value(AUTHORIZATION)):
                raise lapse

    def _limited(self, gate: Gate, operation: str, waits: Semaphore) -> Principal:
        """Return who has sent it. Raises Exceeded if that is too many calls, and what `authenticate` raises."""
        # Such as ipv4:127.0.0.1:50123, or ipv6:%5B::1%5D:50123.
        peer = unquote(self.context.peer()).partition(":")[2]
        address = gate.addresses.of(peer, (_text(value) for name, value in self._metadata if name == FORWARDED))
        gate.limits.of_address(address)
        if operation in OPEN:
            # Whoever sends it, nobody looks at credentials.
            return ANONYMOUS
        try:
            principal = self._sender(gate, address, waits)
        except (Invalid, NotAllowed):
            gate.limits.of_failure(address.sender)
            raise
        gate.limits.of_sender(principal, address, operation)
        return principal

    def _sender(self, gate: Gate, address: Address, waits: Semaphore) -> Principal:
        given = self.value(AUTHORIZATION)
        try:
            principal = gate.principal_of(given, address)
        except Missing as missing:
            _wait(missing, waits)
            principal = gate.principal_of(given, address, again=True)
        return acting_for(principal, client_named(self.value(CLIENT_ID), CLIENT_ID))

    def key(self, operation: str) -> Key | None:
        """Return its idempotency key, for its sender and this operation."""
        written = self.value(KEY)
        return None if written is None else Key(self.principal.client_id, operation, key_in(written, KEY))

    def trace(self) -> dict[str, str]:
        """Return what connects events to the call: the W3C trace context that its client sent, and its id."""
        sent = _first(self._metadata, TRACE)
        trace = {TRACE: sent} if sent is not None and TRACE_CONTEXT.fullmatch(sent) else {}
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


def _wait(missing: Missing, waits: Semaphore) -> None:
    """Wait until keys were read once more. Raises KeysUnavailable if they can't be, or if too many calls wait."""
    if not waits.acquire(blocking=False):
        raise KeysUnavailable
    try:
        done, _ = wait([missing.read], timeout=WAIT_SECONDS)
    finally:
        waits.release()
    if not done:
        raise KeysUnavailable


def client_of(metadata: Any, gate: Gate) -> str:
    """Return something by which the client that has sent this metadata differs from others. It takes only a moment.

    A principal is one client, whomever it acts for. All those whose credentials were not checked before are one as
    well: anybody can make up as many of them as they like.
    """
    if gate.credentials is None:
        return _first(metadata, CLIENT_ID) or ""
    authorization = _first(metadata, AUTHORIZATION)
    principal = gate.credentials.known(authorization) if authorization else None
    return principal.name if principal else ""


def _first(metadata: Any, name: str) -> str | None:
    return next((_text(value) for given, value in metadata if given == name), None)


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")


def hash_of(request: Message, *more: object) -> str:
    """Return the hash of a request, and of what else its metadata asks for."""
    given = repr(more).encode() + request.SerializeToString(deterministic=True)
    return f"{RULE}:{hashlib.sha256(given).hexdigest()[:DIGITS]}"


@dataclass(frozen=True, slots=True)
class Access:
    """What the calls of a method pass, and the operation that their senders need a right to."""

    gate: Gate
    operation: str

    def __post_init__(self) -> None:
        if self.operation not in {*RIGHTS, *OPEN}:
            raise RuntimeError(f"{self.operation} is no operation of domain.access.rights.")


def unary(method: str, of: type[M], act: Callable[[Call, M], bytes], group: Group, access: Access) -> "Handlers":
    """Return the handlers of a method that takes one message and answers with one."""

    def answer(client: str, messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        with group.place(context, client):
            call = Call(context)
            try:
                call.authenticate(access, group.waits)
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
    return lambda client: grpc.stream_unary_rpc_method_handler(on(group.threads, partial(answer, client)))


def streaming(
    method: str, of: type[M], act: Callable[[Call, M], Iterator[bytes]], group: Group, access: Access
) -> "Handlers":
    """Return the handlers of a method that takes one message and answers with any number."""

    def answer(client: str, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        with group.place(context, client):
            call, code = Call(context), "CANCELLED"
            try:
                call.authenticate(access, group.waits)
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

    return lambda client: grpc.stream_stream_rpc_method_handler(on(group.threads, partial(answer, client)))


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
