"""A connection to RabbitMQ in a thread of its own: it publishes whole rounds and collects their confirms.

pika's blocking connection waits for each confirm before the next message, which is a
hundred times slower.
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
from pika.adapters.utils.connection_workflow import AMQPConnectionWorkflowFailed, AMQPConnectorPhaseErrorBase
from pika.channel import Channel
from pika.exceptions import (
    AMQPError,
    ChannelClosed,
    ConnectionClosed,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
    ShortStringTooLong,
    StreamLostError,
    UnsupportedAMQPFieldException,
)
from pika.frame import Method
from pika.spec import Basic

from domain.outbox import DELIVERED, Failed, Outcome, Rejected, Unreachable
from worker.sinks.pending_outcomes import Answers

#: What is written to the socket at once, in bytes. pika writes each frame by itself, and a
#: message is three; together they cost a third less CPU.
CHUNK_BYTES = 65_536

#: How long a farewell may take. What is lost without it is a warning in RabbitMQ's log.
FAREWELL_SECONDS = 1.0

#: How RabbitMQ closes the channel of who sends it a message that is too large. Source: AMQP 0-9-1, reply codes.
PRECONDITION_FAILED = 406

#: What no broker could be told, as AMQP has no way of writing it.
UNWRITABLE = (ShortStringTooLong, UnsupportedAMQPFieldException, UnicodeError)

# An outage is told of once, by the drain; pika would tell of it with a traceback at every attempt.
logging.getLogger("pika").setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class Publication:
    """A message, ready to be published. `properties.message_id` tells it from others."""

    routing_key: str
    body: bytes
    properties: BasicProperties


class Link:
    """One connection and one channel, from the beginning to the end. After it, a new one is made.

    All methods that begin with `_on` run in its own thread, and so do those that only they call.
    """

    def __init__(self, parameters: ConnectionParameters, exchange: str) -> None:
        #: What ended it. Nothing is published any more.
        self.fault: Unreachable | None = None
        #: RabbitMQ ended it for what one message is, and did not say which.
        self.is_refused = False
        self._parameters = parameters
        self._exchange = exchange
        self._lock = threading.Lock()
        self._rounds: set[Answers] = set()
        self._early: list[tuple[Answers, Sequence[Publication]]] = []
        self._published = 0
        self._pending: dict[int, tuple[Answers, int, str]] = {}
        self._returned: dict[str, str] = {}
        self._blocked: str | None = None
        self._channel: Channel | None = None
        self._loop = IOLoop()
        self._connection: _Connection
        self._thread = threading.Thread(target=self._run, name="amqp", daemon=True)
        self._thread.start()

    def publish(self, messages: Sequence[Publication], timeout_seconds: float) -> Sequence[Outcome]:
        """Publish messages, as soon as the link is open, and return what became of each."""
        answers = Answers(len(messages))
        with self._lock:
            if self.fault:
                return [self.fault] * len(messages)
            self._rounds.add(answers)
            self._loop.add_callback_threadsafe(partial(self._on_round, answers, messages))
        if not answers.wait(timeout_seconds):
            self._give_up(answers, timeout_seconds)
        with self._lock:
            self._rounds.discard(answers)
        return answers.outcomes()

    def close(self) -> None:
        self._end(Unreachable("the destination was closed"), self._leave)
        self._thread.join(2 * FAREWELL_SECONDS)

    def _give_up(self, answers: Answers, timeout_seconds: float) -> None:
        # Who has been told to wait is not to blame, and the link may be well again. What it was
        # sent stays in line before all that follows, so it can be repeated but not overtaken.
        blocked = self._blocked
        silent = Unreachable(blocked or f"no answer within {timeout_seconds:g} s")
        if not blocked:
            self._end(silent, self._abort)
        answers.give_rest(silent)

    def _run(self) -> None:
        try:
            self._connection = _Connection(
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
            self._leave()
            return
        connection.add_on_connection_blocked_callback(self._on_blocked)
        connection.add_on_connection_unblocked_callback(self._on_unblocked)
        connection.channel(on_open_callback=self._on_channel)

    def _on_channel(self, channel: Channel) -> None:
        channel.add_on_close_callback(self._on_channel_closed)
        channel.add_on_return_callback(self._on_return)
        # A missing exchange is found before anything is sent to it.
        channel.exchange_declare(self._exchange, passive=True, callback=lambda _: None)
        channel.confirm_delivery(self._on_answer, callback=lambda _: self._on_ready(channel))

    def _on_ready(self, channel: Channel) -> None:
        self._channel = channel
        early, self._early = self._early, []
        for answers, messages in early:
            self._on_round(answers, messages)

    def _on_round(self, answers: Answers, messages: Sequence[Publication]) -> None:
        if self.fault or answers.are_complete():
            return
        if self._channel is None:
            self._early.append((answers, messages))
        elif self._blocked:
            answers.give_rest(Unreachable(self._blocked))
        else:
            with self._connection.together():
                for position, message in enumerate(messages):
                    self._publish(self._channel, answers, position, message)

    def _publish(self, channel: Channel, answers: Answers, position: int, message: Publication) -> None:
        try:
            channel.basic_publish(self._exchange, message.routing_key, message.body, message.properties, mandatory=True)
        except UNWRITABLE as error:
            answers.give(position, Rejected(f"AMQP can't carry it: {type(error).__name__}: {error}"))
            return
        self._published += 1
        self._pending[self._published] = (answers, position, message.properties.message_id)

    def _on_return(self, _: Channel, method: Basic.Return, properties: BasicProperties, body: bytes) -> None:
        said = f"{method.reply_code} {method.reply_text}"
        where = f"exchange {method.exchange!r}, routing key {method.routing_key!r}"
        # The confirm comes right after it.
        self._returned[properties.message_id] = f"returned: {said}: no queue is bound for it ({where})"

    def _on_answer(self, frame: Method) -> None:
        answer = frame.method
        is_taken = isinstance(answer, Basic.Ack)
        for tag in list(self._answered(answer)):
            answers, position, message_id = self._pending.pop(tag)
            returned = self._returned.pop(message_id, None) if self._returned else None
            if returned:
                answers.give(position, Rejected(returned))
            else:
                answers.give(position, DELIVERED if is_taken else Failed("RabbitMQ did not take it (basic.nack)"))

    def _answered(self, answer: Basic.Ack | Basic.Nack) -> Iterator[int]:
        """Return the tags that an answer is for. Those that are pending are in order."""
        if answer.multiple:
            return takewhile(lambda tag: tag <= answer.delivery_tag, self._pending)
        return iter([answer.delivery_tag] if answer.delivery_tag in self._pending else [])

    def _on_blocked(self, _: SelectConnection, frame: Method) -> None:
        self._blocked = f"RabbitMQ takes nothing at present: {frame.method.reason}"

    def _on_unblocked(self, *_: object) -> None:
        self._blocked = None

    def _on_channel_closed(self, _: Channel, reason: Exception) -> None:
        self.is_refused = isinstance(reason, ChannelClosed) and reason.reply_code == PRECONDITION_FAILED
        self._end(Unreachable(_told(reason)), self._leave)

    def _on_closed(self, _: object, reason: BaseException) -> None:
        self._end(Unreachable(_told(reason)))
        self._loop.stop()

    def _leave(self) -> None:
        """Take leave of RabbitMQ, which may not hold it up."""
        if self._connection.is_open:
            self._connection.close()
        self._loop.call_later(FAREWELL_SECONDS, self._connection.abort)

    def _abort(self) -> None:
        """Drop the connection, with all that has not been sent: it would come after what is sent next."""
        self._connection.abort()

    def _end(self, fault: Unreachable, then: Callable[[], None] | None = None) -> None:
        """Publish nothing any more, from this moment on, and then do in its own thread what is to be done."""
        with self._lock:
            if then and not self.fault:
                self._loop.add_callback_threadsafe(then)
            self.fault = self.fault or fault
            rounds, self._rounds = self._rounds, set()
        for answers in rounds:
            answers.give_rest(self.fault)


class _Connection(SelectConnection):  # type: ignore[misc]  # pika has no types for mypy
    """pika's connection, which can write frames together and hang up."""

    _held: bytearray | None = None

    @contextmanager
    def together(self) -> Iterator[None]:
        """Write what the block sends in large pieces."""
        self._held = bytearray()
        try:
            yield
        finally:
            self._flush()
            self._held = None

    def abort(self) -> None:
        """Hang up without a word. A connection that is not open yet ends by its own time-out."""
        if self._opened and not self.is_closed:
            self._terminate_stream(StreamLostError("hung up"))

    def _adapter_emit_data(self, data: bytes) -> None:
        if self._held is None:
            super()._adapter_emit_data(data)
            return
        self._held += data
        if len(self._held) >= CHUNK_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._held:
            super()._adapter_emit_data(bytes(self._held))
            self._held.clear()


def _told(error: object) -> str:
    """Return what an operator needs to know of an error of pika's, which wraps errors in errors."""
    match error:
        case AMQPConnectionWorkflowFailed(exceptions=[*_, inner]) | AMQPConnectorPhaseErrorBase(exception=inner):
            return _told(inner)
        case ProbableAuthenticationError():
            return "RabbitMQ refuses the user or the password"
        case ProbableAccessDeniedError():
            return f"RabbitMQ refuses this user the virtual host: {error}"
        case ConnectionClosed() | ChannelClosed():
            return f"{error.reply_code} {error.reply_text}"
        case AMQPError(args=[BaseException() as inner]):
            return _told(inner)
        case OSError(strerror=str() as reason):
            return f"can't connect: {reason}"
    return f"{type(error).__name__}: {error}"
