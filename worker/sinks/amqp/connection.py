"""A connection to RabbitMQ in a thread of its own: it publishes many messages together and collects their confirms.

pika's blocking connection waits for each confirm before it sends the next message, which is a hundred times slower.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import takewhile

from pika import BasicProperties, ConnectionParameters, SelectConnection
from pika.adapters.select_connection import IOLoop
from pika.channel import Channel
from pika.exceptions import ChannelClosed, ShortStringTooLong, StreamLostError, UnsupportedAMQPFieldException
from pika.frame import Method
from pika.spec import Basic

from domain.outbox import DELIVERED, Cause, Outcome, Rejected, Unreachable
from worker.ordering.pending_outcomes import PendingOutcomes
from worker.sinks.amqp.errors import describe

#: The bytes that are written to the socket at once. pika writes each frame by itself, and a message is three frames;
#: written together they cost a third less CPU.
CHUNK_BYTES = 65_536

#: How long closing the connection in due form may take. Without it, RabbitMQ logs a warning.
CLOSING_SECONDS = 1.0

#: The reply code with which RabbitMQ closes a channel on which it was sent a message that is too large. Source: AMQP
#: 0-9-1, reply codes.
PRECONDITION_FAILED = 406

#: RabbitMQ refuses what does not fit into a queue, and what it can't keep.
NACK = Unreachable("RabbitMQ did not take it (basic.nack)", cause=Cause.LOAD)

#: What pika raises for a message that AMQP has no way of writing.
UNWRITABLE = (ShortStringTooLong, UnsupportedAMQPFieldException, UnicodeError)

# The relay logs an outage once. pika would log it with a traceback at every attempt.
logging.getLogger("pika").setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class Publication:
    """A message, ready to be published. Its `properties.message_id` is unique."""

    routing_key: str
    body: bytes
    properties: BasicProperties


class Connection:
    """One connection with one channel. When it has ended, `fault` is set, and a new one is made.

    All methods whose names begin with `_on` run in its own thread, and so do the methods that only they call.
    """

    def __init__(self, parameters: ConnectionParameters, exchange: str) -> None:
        #: The error that ended it. Nothing more is published.
        self.fault: Unreachable | None = None
        #: RabbitMQ ended it because of one message, without saying which.
        self.is_refused = False
        #: RabbitMQ or the network ended it, and none of our own calls.
        self.is_lost = False
        self._parameters = parameters
        self._exchange = exchange
        self._lock = threading.Lock()
        self._waiting: set[PendingOutcomes] = set()
        self._early: list[tuple[PendingOutcomes, Sequence[Publication]]] = []
        self._published = 0
        self._unconfirmed: dict[int, tuple[PendingOutcomes, int, str]] = {}
        self._returned: dict[str, str] = {}
        self._blocked: str | None = None
        self._channel: Channel | None = None
        self._loop = IOLoop()
        self._pika: _PikaConnection
        self._thread = threading.Thread(target=self._run, name="amqp", daemon=True)
        self._thread.start()

    @property
    def is_open(self) -> bool:
        """Whether it is open, or was."""
        return self._channel is not None

    def publish(self, messages: Sequence[Publication], timeout_seconds: float) -> Sequence[Outcome]:
        """Publish messages, as soon as the connection is open, and return what became of each."""
        pending = PendingOutcomes(len(messages))
        with self._lock:
            if self.fault:
                return [self.fault] * len(messages)
            self._waiting.add(pending)
            self._loop.add_callback_threadsafe(partial(self._on_messages, pending, messages))
        if not pending.wait(timeout_seconds):
            self._give_up(pending, timeout_seconds)
        with self._lock:
            self._waiting.discard(pending)
        return pending.outcomes()

    def close(self) -> None:
        self._end(Unreachable("the destination was closed"), self._close)
        self._thread.join(2 * CLOSING_SECONDS)

    def _give_up(self, pending: PendingOutcomes, timeout_seconds: float) -> None:
        # A blocked connection is kept, as it may be unblocked. RabbitMQ takes the messages that it was sent before
        # all later ones, so they may be repeated but can't be overtaken.
        blocked = self._blocked
        outage = Unreachable(blocked or f"no answer within {timeout_seconds:.3g} s")
        if not blocked:
            self._end(outage, self._abort)
        pending.resolve_missing(outage)

    def _run(self) -> None:
        try:
            self._pika = _PikaConnection(
                self._parameters,
                on_open_callback=self._on_open,
                on_open_error_callback=self._on_closed,
                on_close_callback=self._on_closed,
                custom_ioloop=self._loop,
            )
            self._loop.start()
        finally:
            self._end(Unreachable("the connection broke"))
            self._loop.close()

    def _on_open(self, connection: SelectConnection) -> None:
        if self.fault:
            self._close()
            return
        connection.add_on_connection_blocked_callback(self._on_blocked)
        connection.add_on_connection_unblocked_callback(self._on_unblocked)
        connection.channel(on_open_callback=self._on_channel)

    def _on_channel(self, channel: Channel) -> None:
        channel.add_on_close_callback(self._on_channel_closed)
        channel.add_on_return_callback(self._on_return)
        # This finds a missing exchange before anything is sent to it.
        channel.exchange_declare(self._exchange, passive=True, callback=lambda _: None)
        channel.confirm_delivery(self._on_confirm, callback=lambda _: self._on_ready(channel))

    def _on_ready(self, channel: Channel) -> None:
        self._channel = channel
        early, self._early = self._early, []
        for pending, messages in early:
            self._on_messages(pending, messages)

    def _on_messages(self, pending: PendingOutcomes, messages: Sequence[Publication]) -> None:
        if self.fault or pending.is_complete():
            return
        if self._channel is None:
            self._early.append((pending, messages))
        elif self._blocked:
            pending.resolve_missing(Unreachable(self._blocked))
        else:
            with self._pika.together():
                for position, message in enumerate(messages):
                    self._publish(self._channel, pending, position, message)

    def _publish(self, channel: Channel, pending: PendingOutcomes, position: int, message: Publication) -> None:
        try:
            channel.basic_publish(self._exchange, message.routing_key, message.body, message.properties, mandatory=True)
        except UNWRITABLE as error:
            pending.resolve(position, Rejected(f"AMQP can't carry it: {type(error).__name__}: {error}"))
            return
        self._published += 1
        self._unconfirmed[self._published] = (pending, position, message.properties.message_id)

    def _on_return(self, _: Channel, method: Basic.Return, properties: BasicProperties, body: bytes) -> None:
        reason = f"{method.reply_code} {method.reply_text}"
        where = f"exchange {method.exchange!r}, routing key {method.routing_key!r}"
        # The confirm of a returned message follows at once.
        self._returned[properties.message_id] = f"returned: {reason}: no queue is bound for it ({where})"

    def _on_confirm(self, frame: Method) -> None:
        confirm = frame.method
        is_taken = isinstance(confirm, Basic.Ack)
        for tag in list(self._confirmed(confirm)):
            pending, position, message_id = self._unconfirmed.pop(tag)
            returned = self._returned.pop(message_id, None) if self._returned else None
            if returned:
                pending.resolve(position, Unreachable(returned, cause=Cause.DENIED))
            else:
                pending.resolve(position, DELIVERED if is_taken else NACK)

    def _confirmed(self, confirm: Basic.Ack | Basic.Nack) -> Iterator[int]:
        """Return the tags of the messages that a confirm is for. The unconfirmed ones are in order."""
        if confirm.multiple:
            return takewhile(lambda tag: tag <= confirm.delivery_tag, self._unconfirmed)
        return iter([confirm.delivery_tag] if confirm.delivery_tag in self._unconfirmed else [])

    def _on_blocked(self, _: SelectConnection, frame: Method) -> None:
        self._blocked = f"RabbitMQ takes nothing at present: {frame.method.reason}"

    def _on_unblocked(self, *_: object) -> None:
        self._blocked = None

    def _on_channel_closed(self, _: Channel, reason: Exception) -> None:
        self.is_refused = isinstance(reason, ChannelClosed) and reason.reply_code == PRECONDITION_FAILED
        # The end of a connection ends its channel first.
        self.is_lost = self.fault is None and not isinstance(reason, ChannelClosed)
        self._end(Unreachable(self._describe(reason)), self._close)

    def _on_closed(self, _: object, reason: BaseException) -> None:
        self._end(Unreachable(self._describe(reason)))
        self._loop.stop()

    def _describe(self, error: BaseException) -> str:
        return describe(error, is_tls=self._parameters.ssl_options is not None)

    def _close(self) -> None:
        """Close the connection in due form, and hang up if RabbitMQ takes too long to agree."""
        if self._pika.is_open:
            self._pika.close()
        self._loop.call_later(CLOSING_SECONDS, self._pika.abort)

    def _abort(self) -> None:
        """Hang up and drop all that has not been sent: it would arrive after the messages that are sent next."""
        self._pika.abort()

    def _end(self, fault: Unreachable, then: Callable[[], None] | None = None) -> None:
        """Publish nothing more from this moment on. `then` is called in its own thread, if this ends it."""
        with self._lock:
            if then and not self.fault:
                self._loop.add_callback_threadsafe(then)
            self.fault = self.fault or fault
            waiting, self._waiting = self._waiting, set()
        for pending in waiting:
            pending.resolve_missing(self.fault)


class _PikaConnection(SelectConnection):  # type: ignore[misc]  # pika has no types for mypy
    """pika's connection, which can also write frames together and hang up."""

    _buffer: bytearray | None = None

    @contextmanager
    def together(self) -> Iterator[None]:
        """Write what is sent within the block in large pieces."""
        self._buffer = bytearray()
        try:
            yield
        finally:
            self._flush()
            self._buffer = None

    def abort(self) -> None:
        """Hang up without closing in due form. A connection that is not open yet ends by its own time-out."""
        if self._opened and not self.is_closed:
            self._terminate_stream(StreamLostError("hung up"))

    def _adapter_emit_data(self, data: bytes) -> None:
        if self._buffer is None:
            super()._adapter_emit_data(data)
            return
        self._buffer += data
        if len(self._buffer) >= CHUNK_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._buffer:
            super()._adapter_emit_data(bytes(self._buffer))
            self._buffer.clear()
