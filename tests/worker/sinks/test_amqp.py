"""`amqp://`: what a message contains, and what each answer of RabbitMQ means for a row."""

import json
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from threading import Event, Thread
from uuid import UUID, uuid4

import pytest

from domain.outbox import Cause, Delivered, NotSent, Outcome, Rejected, Route, Row, Unreachable
from domain.runtime.errors import ConfigurationError
from tests.conformance.proxy import Answers, Proxy
from tests.support.builders import some_settings
from tests.support.ports import free_port
from tests.support.rabbitmq import MAX_MESSAGE_BYTES, RabbitMQ, rabbitmq
from tests.support.waiting import wait_until
from worker.ordering.pace import Pace
from worker.sinks.amqp.sink import Amqp

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("rabbitmq")]

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)

Open = Callable[..., Amqp]


def a_row(
    event_type: str = "booking.created", payload: str = "{}", aggregate: UUID | None = None, headers: str = "{}"
) -> Row:
    event_id = uuid4()
    return Row(event_id.int, event_id, aggregate or uuid4(), event_type, payload, headers, 0, NOON, None, None, NOON)


def a_large_row() -> Row:
    return a_row(payload=json.dumps("x" * MAX_MESSAGE_BYTES))


@pytest.fixture
def server() -> RabbitMQ:
    return rabbitmq()


@pytest.fixture
def open_amqp() -> Iterator[Open]:
    """Open sinks with these URLs. They are closed after the test."""
    with ExitStack() as stack:

        def opened(url: str, **route: object) -> Amqp:
            sink = Amqp(Route.model_validate({"name": "bookings", "url": url} | route), some_settings(), Pace(Event()))
            stack.callback(sink.close)
            return sink

        yield opened


def test_a_message_has_everything_that_a_consumer_needs(server: RabbitMQ, open_amqp: Open) -> None:
    name = server.an_exchange()
    row = a_row("booking.confirmed", headers='{"correlation_id": "c-1"}')

    outcomes = open_amqp(f"{server.url}?exchange={name}").deliver([row])

    assert outcomes == [Delivered()]
    (message,) = server.take_all(name)
    properties = message.properties
    assert message.routing_key == properties.type == "booking.confirmed"
    assert properties.message_id == str(row.event_id)
    assert properties.headers == {"aggregate_id": str(row.aggregate_id), "X-Request-Id": "c-1"}
    assert properties.content_type == "application/json"
    assert (properties.delivery_mode, properties.timestamp) == (2, int(NOON.timestamp()))
    assert json.loads(message.body)["event_id"] == str(row.event_id)


def test_messages_of_an_aggregate_arrive_in_order_while_several_threads_deliver(
    server: RabbitMQ, open_amqp: Open
) -> None:
    name = server.an_exchange()
    amqp = open_amqp(f"{server.url}?exchange={name}")
    aggregates = [uuid4() for _ in range(40)]
    batches = [[a_row(aggregate=one) for _ in range(5) for one in aggregates[number::4]] for number in range(4)]
    outcomes: list[Outcome] = []
    threads = [Thread(target=lambda rows=rows: outcomes.extend(amqp.deliver(rows))) for rows in batches]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert outcomes == [Delivered()] * 200
    taken = [message.properties.message_id for message in server.take_all(name)]
    for batch in batches:
        for aggregate in aggregates:
            events = [str(row.event_id) for row in batch if row.aggregate_id == aggregate]
            assert [event for event in taken if event in events] == events
    assert len(taken) == 200


def test_a_message_that_no_queue_is_bound_for_is_not_taken(server: RabbitMQ, open_amqp: Open) -> None:
    name = server.an_exchange("booking.created")
    amqp = open_amqp(f"{server.url}?exchange={name}")

    outcomes = amqp.deliver([a_row(), a_row("booking.lost"), a_row(), a_row("booking.lost"), a_row()])

    assert [type(outcome) for outcome in outcomes] == [Delivered, Unreachable, Delivered, Unreachable, Delivered]
    assert isinstance(outcomes[1], Unreachable) and outcomes[1].cause is Cause.DENIED
    assert "312 NO_ROUTE" in str(outcomes[1]) and "booking.lost" in str(outcomes[1])


def test_a_full_queue_takes_too_little(server: RabbitMQ, open_amqp: Open) -> None:
    name = server.an_exchange(max_length=2, overflow="reject-publish")
    amqp = open_amqp(f"{server.url}?exchange={name}")
    aggregate = uuid4()

    outcomes = amqp.deliver([a_row(), a_row(), a_row(aggregate=aggregate), a_row(aggregate=aggregate)])

    assert outcomes[:2] == [Delivered()] * 2
    assert isinstance(outcomes[2], Unreachable) and outcomes[2].cause is Cause.LOAD
    assert outcomes[3] == NotSent()


@pytest.mark.parametrize("position", range(6))
def test_a_message_that_is_too_large_is_rejected_alone(server: RabbitMQ, open_amqp: Open, position: int) -> None:
    name = server.an_exchange()
    rows = [a_row() for _ in range(5)]
    rows.insert(position, a_large_row())

    outcomes = open_amqp(f"{server.url}?exchange={name}").deliver(rows)

    assert [type(outcome) for outcome in outcomes] == [
        Rejected if number == position else Delivered for number in range(6)
    ]
    assert "406 PRECONDITION_FAILED" in str(outcomes[position]) and f"{MAX_MESSAGE_BYTES:d}" in str(outcomes[position])


def test_messages_that_are_too_large_are_rejected_and_those_of_other_threads_are_delivered(
    server: RabbitMQ, open_amqp: Open
) -> None:
    amqp = open_amqp(f"{server.url}?exchange={server.an_exchange()}")
    outcomes: list[Outcome] = []

    def deliver_others() -> None:
        for _ in range(200):
            outcomes.extend(amqp.deliver([a_row()]))

    other = Thread(target=deliver_others)
    other.start()
    large = amqp.deliver([a_large_row(), *(a_row() for _ in range(20)), a_large_row(), a_large_row()])
    other.join()

    assert [type(outcome) for outcome in large] == [Rejected, *[Delivered] * 20, Rejected, Rejected]
    assert outcomes == [Delivered()] * 200


def test_a_missing_exchange_is_an_outage_until_it_is_declared(server: RabbitMQ, open_amqp: Open) -> None:
    amqp = open_amqp(f"{server.url}?exchange=not-yet")
    (outcome,) = amqp.deliver([a_row()])
    assert isinstance(outcome, Unreachable) and "no exchange 'not-yet'" in outcome.error

    with server.channel() as channel:
        channel.exchange_declare("not-yet", "fanout")
        channel.queue_declare("not-yet")
        channel.queue_bind("not-yet", "not-yet")

    assert amqp.deliver([a_row()]) == [Delivered()]


def test_an_exchange_that_was_deleted_is_an_outage(server: RabbitMQ, open_amqp: Open) -> None:
    name = server.an_exchange()
    amqp = open_amqp(f"{server.url}?exchange={name}")
    assert amqp.deliver([a_row()]) == [Delivered()]
    with server.channel() as channel:
        channel.exchange_delete(name)

    outcomes = amqp.deliver([a_row(), a_row()])

    assert [type(outcome) for outcome in outcomes] == [Unreachable] * 2


def test_a_user_without_the_permission_to_publish_is_an_outage(server: RabbitMQ, open_amqp: Open) -> None:
    name = server.an_exchange()
    server.control("add_user", "reader", "secret+word")
    server.control("set_permissions", "reader", "^$", "^$", ".*")
    url = f"amqp://reader:secret+word@127.0.0.1:{server.port}"

    (outcome,) = open_amqp(f"{url}?exchange={name}").deliver([a_row()])

    assert isinstance(outcome, Unreachable) and outcome.error.startswith("403 ACCESS_REFUSED")


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("guest:wrong@127.0.0.1:{port}", "the user or the password"),
        ("guest:guest@127.0.0.1:{port}/nowhere", "vhost nowhere not found"),
        ("guest:guest@127.0.0.1:{free}", "Connection refused"),
        ("guest:guest@nowhere.invalid", "can't connect"),
    ],
)
def test_a_connection_that_fails_is_an_outage_with_its_reason(
    server: RabbitMQ, open_amqp: Open, address: str, reason: str
) -> None:
    amqp = open_amqp(f"amqp://{address.format(port=server.port, free=free_port())}?exchange=bookings")

    first, second = amqp.deliver([a_row(), a_row()])

    assert isinstance(first, Unreachable) and reason in first.error
    assert first == second


def test_while_rabbitmq_blocks_a_connection_nothing_is_sent_to_it(server: RabbitMQ, open_amqp: Open) -> None:
    name = server.an_exchange()
    amqp = open_amqp(f"{server.url}?exchange={name}", timeout_seconds=2)
    rows = [a_row() for _ in range(20)]

    def is_blocked() -> bool:
        (outcome,) = amqp.deliver([a_row()])
        return isinstance(outcome, Unreachable) and "takes nothing" in outcome.error

    with server.alarmed():
        # RabbitMQ still takes the first message, which makes it block the connection.
        wait_until("RabbitMQ blocks the connection", is_blocked)
        for _ in range(2):
            assert {type(outcome) for outcome in amqp.deliver(rows)} == {Unreachable}

    wait_until("the rows are delivered", lambda: amqp.deliver(rows) == [Delivered()] * 20)
    taken = [message.properties.message_id for message in server.take_all(name)]
    assert [taken.count(str(row.event_id)) for row in rows] == [1] * 20


def test_the_connection_to_a_server_that_does_not_answer_is_closed(server: RabbitMQ, open_amqp: Open) -> None:
    proxy = Proxy(("127.0.0.1", server.port))
    url = f"amqp://guest:guest@127.0.0.1:{proxy.port}?exchange={server.an_exchange()}"
    amqp = open_amqp(url, timeout_seconds=2)
    assert amqp.deliver([a_row()]) == [Delivered()]
    (connection,) = [thread for thread in threading.enumerate() if thread.name == "amqp"]
    proxy.answers = Answers.SILENCE

    (outcome,) = amqp.deliver([a_row()])

    assert outcome == Unreachable("no answer within 2 s")
    wait_until("the thread of the connection has ended", lambda: not connection.is_alive())
    proxy.close()


class Breaking(Proxy):
    """Ends a connection in place of each of the next answers, as many as `breaks` says."""

    breaks = 0

    def _passes_on(self, answered: bytes, client: socket.socket) -> bool:
        if not self.breaks:
            return super()._passes_on(answered, client)
        self.breaks -= 1
        return False


@pytest.fixture
def breaking(server: RabbitMQ) -> Iterator[Breaking]:
    proxy = Breaking(("127.0.0.1", server.port))
    yield proxy
    proxy.close()


def test_messages_are_published_once_more_if_a_kept_connection_breaks(
    server: RabbitMQ, open_amqp: Open, breaking: Breaking
) -> None:
    name = server.an_exchange()
    amqp = open_amqp(f"amqp://guest:guest@127.0.0.1:{breaking.port}?exchange={name}")
    aggregate = uuid4()
    first, *rows = [a_row(aggregate=aggregate) for _ in range(3)]
    assert amqp.deliver([first]) == [Delivered()]
    breaking.breaks = 1

    assert amqp.deliver(rows) == [Delivered()] * 2

    second, third = (str(row.event_id) for row in rows)
    taken = [message.properties.message_id for message in server.take_all(name)]
    # RabbitMQ took the second one before the connection broke, and again afterwards.
    assert taken == [str(first.event_id), second, second, third]


def test_messages_that_break_a_new_connection_too_are_an_outage(
    server: RabbitMQ, open_amqp: Open, breaking: Breaking
) -> None:
    amqp = open_amqp(f"amqp://guest:guest@127.0.0.1:{breaking.port}?exchange={server.an_exchange()}")
    assert amqp.deliver([a_row()]) == [Delivered()]
    breaking.breaks = 2

    (outcome,) = amqp.deliver([a_row()])

    assert isinstance(outcome, Unreachable)
    assert breaking.breaks == 0


def test_a_new_connection_that_breaks_is_not_tried_again(server: RabbitMQ, open_amqp: Open, breaking: Breaking) -> None:
    amqp = open_amqp(f"amqp://guest:guest@127.0.0.1:{breaking.port}?exchange={server.an_exchange()}")
    breaking.breaks = 2

    (outcome,) = amqp.deliver([a_row()])

    assert isinstance(outcome, Unreachable)
    assert breaking.breaks == 1


def test_after_an_outage_a_new_connection_is_opened(server: RabbitMQ, open_amqp: Open) -> None:
    name = server.an_exchange()
    amqp = open_amqp(f"{server.url}?exchange={name}")
    assert amqp.deliver([a_row()]) == [Delivered()]
    rows: Sequence[Row] = [a_row(), a_row()]
    server.stop()
    try:
        assert [type(outcome) for outcome in amqp.deliver(rows)] == [Unreachable] * 2
    finally:
        server.start()

    # It takes connections before its queues are bound again.
    wait_until("both are taken", lambda: amqp.deliver(rows) == [Delivered()] * 2)


def test_a_message_that_amqp_can_not_carry_is_rejected_alone(server: RabbitMQ, open_amqp: Open) -> None:
    amqp = open_amqp(f"{server.url}?exchange={server.an_exchange()}")

    outcomes = amqp.deliver([a_row(), a_row("x" * 300), a_row()])

    assert [type(outcome) for outcome in outcomes] == [Delivered, Rejected, Delivered]


def test_a_sink_that_was_never_used_can_be_closed(open_amqp: Open) -> None:
    open_amqp("amqp://127.0.0.1?exchange=bookings").close()


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("amqp://127.0.0.1/", "needs the exchange"),
        ("amqp://127.0.0.1/?exchange=", "needs the exchange"),
        ("amqp:///?exchange=bookings", "must name a host"),
        ("amqp://127.0.0.1:port/?exchange=bookings", "port can't be read"),
        ("amqp://127.0.0.1/?exchange=bookings&queue=x", "'queue' is no option"),
        ("amqp://127.0.0.1/?exchange=bookings&exchange=x", "given twice"),
        ("amqp://127.0.0.1/a/b?exchange=bookings", "a%2Fb"),
        (f"amqp://127.0.0.1/?exchange={'x' * 128}", "127 bytes"),
        ("amqp://127.0.0.1/?exchange=bookings&cacertfile=/x", "amqps:// only"),
        ("amqps://127.0.0.1/?exchange=bookings&cacertfile=/nowhere", "No such file"),
        ("amqps://127.0.0.1/?exchange=bookings&keyfile=/nowhere", "needs a certfile"),
    ],
)
def test_a_url_that_can_not_be_used_is_refused_with_the_reason(open_amqp: Open, url: str, reason: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        open_amqp(url)

    message = str(error.value)
    assert message.startswith("HOLDFAST_ROUTES: destination 'bookings': ") and reason in message
