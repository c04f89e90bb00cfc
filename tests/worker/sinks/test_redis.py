"""`redis://`: the fields of an entry, the options of the URL, and what each answer of Redis means for a row."""

import json
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any
from uuid import uuid4

import pytest
from redis import Redis

from deploy.embedded import RedisServer
from domain.outbox import Cause, Delivered, Failed, NotSent, Outcome, Route, Row, Unreachable
from domain.runtime.errors import ConfigurationError
from tests.conformance.proxy import Answers, Proxy
from tests.conformance.redis_proxy import RedisProxy
from tests.support.builders import some_settings
from worker import formats
from worker.formats import Message
from worker.ordering.pace import Pace
from worker.sinks.redis.sink import PIPELINE, RedisStream

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)

#: Longer than any answer of these tests takes.
TIMEOUT_SECONDS = 20.0


def a_row(row_id: int = 1, **headers: str) -> Row:
    return Row(
        row_id, uuid4(), uuid4(), "booking.created", '{"note": "Zoë"}', json.dumps(headers), 0, NOON, None, None, NOON
    )


def some_rows(count: int) -> Sequence[Row]:
    return [a_row(row_id) for row_id in range(1, count + 1)]


def a_sink(url: str, *, stopping: Event | None = None, **fields: Any) -> RedisStream:
    options = {"timeout_seconds": TIMEOUT_SECONDS} | fields
    return RedisStream(Route(name="stream", url=url, **options), some_settings(), Pace(stopping or Event()))


def outcomes_of(rows: Sequence[Row], url: str, **fields: Any) -> Sequence[Outcome]:
    sink = a_sink(url, **fields)
    try:
        return sink.deliver(rows)
    finally:
        sink.close()


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer(Path(folder))
        yield server
        server.stop()


@pytest.fixture
def client(server: RedisServer) -> Iterator[Redis]:
    """A client of an empty Redis."""
    with Redis.from_url(server.url, decode_responses=True) as client:
        client.flushall()
        yield client


def entries(client: Redis, stream: str = "bookings") -> list[Mapping[str, str]]:
    found: Any = client.xrange(stream)
    return [fields for _, fields in found]


@pytest.fixture
def proxy(server: RedisServer) -> Iterator[RedisProxy]:
    """A proxy in front of Redis. Tests set what it answers itself."""
    proxy = RedisProxy(server.url.removeprefix("unix://"), lambda _: None)
    yield proxy
    proxy.close()


def url_of(proxy: RedisProxy) -> str:
    return f"redis://127.0.0.1:{proxy.server_address[1]}/0?stream=bookings"


def saying(*answers: bytes) -> Callable[[Sequence[bytes]], bytes | None]:
    """Answer the first entries with these answers, and let Redis answer all other commands."""
    remaining = list(answers)
    return lambda command: remaining.pop(0) if command[0] == b"XADD" and remaining else None


def test_the_fields_of_an_entry_are_the_event(server: RedisServer, client: Redis) -> None:
    row = a_row(traceparent="00-1-2-01")

    assert outcomes_of([row], f"{server.url}?stream=bookings") == [Delivered()]

    (entry,) = entries(client)
    body = json.loads(entry["body"])
    assert (body["event_id"], body["payload"]) == (str(row.event_id), {"note": "Zoë"})
    assert {name: value for name, value in entry.items() if name != "body"} == {
        "event_id": str(row.event_id),
        "event_type": "booking.created",
        "aggregate_id": str(row.aggregate_id),
        "content_type": "application/json",
        "traceparent": "00-1-2-01",
    }


def test_an_attribute_can_not_replace_a_field_of_the_sink(
    server: RedisServer, client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = Message("the body", attributes={"body": "another", "event_id": "another"})
    monkeypatch.setattr(formats, "FORMATS", {"envelope": lambda _: lambda _: message})
    row = a_row()

    outcomes_of([row], f"{server.url}?stream=bookings")

    (entry,) = entries(client)
    assert (entry["body"], entry["event_id"]) == ("the body", str(row.event_id))


def test_more_rows_than_one_pipeline_has_are_added_in_order(server: RedisServer, client: Redis) -> None:
    rows = some_rows(2 * PIPELINE + 1)

    assert outcomes_of(rows, f"{server.url}?stream=bookings") == [Delivered()] * len(rows)
    assert [entry["event_id"] for entry in entries(client)] == [str(row.event_id) for row in rows]


def test_a_stream_keeps_about_as_many_entries_as_the_url_says(server: RedisServer, client: Redis) -> None:
    outcomes_of(some_rows(2_000), f"{server.url}?stream=bookings&maxlen=300")

    # Redis removes whole nodes, of 100 entries each.
    assert 300 <= len(entries(client)) <= 400


def test_without_maxlen_a_stream_keeps_all_entries(server: RedisServer, client: Redis) -> None:
    outcomes_of(some_rows(2_000), f"{server.url}?stream=bookings")

    assert len(entries(client)) == 2_000


def test_a_row_that_can_not_be_written_fails_alone(server: RedisServer, client: Redis) -> None:
    rows = [a_row(1), a_row(2)._replace(headers="no JSON"), a_row(3)]

    outcomes = outcomes_of(rows, f"{server.url}?stream=bookings")

    assert [type(outcome) for outcome in outcomes] == [Delivered, Failed, Delivered]
    assert len(entries(client)) == 2


def test_a_key_with_another_type_of_value_is_an_outage_with_its_reason(server: RedisServer, client: Redis) -> None:
    client.set("bookings", "mine")

    (outcome,) = outcomes_of([a_row()], f"{server.url}?stream=bookings")

    assert isinstance(outcome, Unreachable)
    assert outcome.error.startswith("'bookings' is no stream: another kind of value has that name.")


@pytest.mark.parametrize(
    "answer",
    [
        b"-OOM command not allowed when used memory > 'maxmemory'.",
        b"-READONLY You can't write against a read only replica.",
        b"-LOADING Redis is loading the dataset in memory",
        b"-CLUSTERDOWN Hash slot not served",
        b"-NOAUTH Authentication required.",
        b"-NOPERM this user has no permissions to run the 'xadd' command",
        b"-MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
        b"-NOREPLICAS Not enough good replicas to write.",
        b"-MASTERDOWN Link with MASTER is down",
        b"-BUSY Redis is busy running a script.",
        b"-MOVED 3999 127.0.0.1:6381",
        b"-TRYAGAIN Multiple keys request during rehashing of slot",
        b"-ERR unknown command 'XADD', with args beginning with: 'bookings'",
        b"-ERR max number of clients reached",
        # These are no errors, and no ids of entries either.
        b"+OK",
        b":1",
        b"$-1",
        b"*0",
        b"$2\r\nOK",
        # These are not in Redis's protocol.
        b"$x",
        b"*x",
        b"HTTP/1.1 400 Bad Request",
    ],
)
def test_an_error_of_redis_itself_is_an_outage(proxy: RedisProxy, answer: bytes) -> None:
    proxy.answer = saying(answer + b"\r\n")

    (outcome,) = outcomes_of([a_row()], url_of(proxy))

    assert isinstance(outcome, Unreachable)


def test_an_error_of_one_entry_fails_this_entry_alone(proxy: RedisProxy, client: Redis) -> None:
    sink = a_sink(url_of(proxy))
    rows = some_rows(3)
    proxy.answer = saying(b"$3\r\n1-1\r\n", b"-ERR not this one\r\n", b"$3\r\n1-2\r\n")

    assert sink.deliver(rows) == [Delivered(), Unreachable("not this one", cause=Cause.ERROR), Delivered()]
    assert sink.deliver(rows) == [Delivered()] * 3
    sink.close()


def test_an_unread_reply_is_not_taken_for_the_reply_to_the_next_entry(proxy: RedisProxy, client: Redis) -> None:
    sink = a_sink(url_of(proxy))
    proxy.answer = saying(b"$3\r\n1-1\r\n$3\r\n1-2\r\n$3\r\n1-3\r\n")
    assert sink.deliver([a_row()]) == [Delivered()]
    proxy.answer = saying(b"-OOM full\r\n")

    (outcome,) = sink.deliver([a_row()])

    sink.close()
    assert isinstance(outcome, Unreachable)


ENDLESS = {"bulk": b"$1000000000\r\n" + b"x" * 2_000_000, "simple": b"+" + b"x" * 2_000_000}


# pytest puts the name of a test into the environment, where a whole reply would leave no room for programs to start.
@pytest.mark.parametrize("endless", ENDLESS.values(), ids=ENDLESS)
def test_a_reply_without_end_is_not_kept(proxy: RedisProxy, client: Redis, endless: bytes) -> None:
    sink = a_sink(url_of(proxy))
    proxy.answer = saying(endless)

    (outcome,) = sink.deliver([a_row()])

    sink.close()
    assert isinstance(outcome, Unreachable) and "more than 1,000,000 bytes" in outcome.error


@pytest.mark.timed
@pytest.mark.parametrize("connects", [True, False], ids=["while it connects", "to entries"])
def test_a_redis_whose_answers_drip_has_one_time_out_for_all_of_them(server: RedisServer, connects: bool) -> None:
    """Each byte comes before the time-out, and so does each answer, but not all answers."""
    proxy = Proxy(server.url.removeprefix("unix://"))
    sink = a_sink(f"redis://127.0.0.1:{proxy.port}/{int(connects)}?stream=bookings", timeout_seconds=1)
    if not connects:
        assert sink.deliver([a_row()]) == [Delivered()]
    proxy.answers = Answers.DRIPS
    began = time.monotonic()

    (outcome, *_) = sink.deliver(some_rows(3))

    took = time.monotonic() - began
    sink.close()
    proxy.close()
    assert outcome == Unreachable("Redis did not answer within 1 s")
    assert 0.9 < took < 2


@pytest.mark.timed
def test_a_redis_that_reads_nothing_has_one_time_out_for_all_entries(server: RedisServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"redis://127.0.0.1:{listener.getsockname()[1]}/0?stream=bookings"
        began = time.monotonic()

        outcomes = outcomes_of(some_rows(3), url, timeout_seconds=1)

        assert outcomes == [Unreachable("Redis did not answer within 1 s")] * 3
        assert time.monotonic() - began < 2


def hanging_up(*answers: bytes) -> Callable[[Sequence[bytes]], bytes | None]:
    """Answer the first entries with these answers, close the connection at the next one, and then let Redis answer."""
    remaining = [*answers, None]

    def answer(command: Sequence[bytes]) -> bytes | None:
        if command[0] != b"XADD" or not remaining:
            return None
        said = remaining.pop(0)
        if said is None:
            raise ConnectionResetError
        return said

    return answer


def test_entries_are_added_on_a_new_connection_if_a_kept_one_breaks(proxy: RedisProxy, client: Redis) -> None:
    sink = a_sink(url_of(proxy))
    first, second, third = some_rows(3)
    assert sink.deliver([first]) == [Delivered()]
    proxy.answer = hanging_up()

    assert sink.deliver([second, third]) == [Delivered()] * 2

    sink.close()
    assert [entry["event_id"] for entry in entries(client)] == [str(row.event_id) for row in (first, second, third)]


def test_entries_are_not_added_again_if_a_kept_connection_breaks_after_an_answer(
    proxy: RedisProxy, client: Redis
) -> None:
    sink = a_sink(url_of(proxy))
    assert sink.deliver([a_row()]) == [Delivered()]
    proxy.answer = hanging_up(b"$3\r\n1-1\r\n")

    outcomes = sink.deliver(some_rows(2))

    sink.close()
    assert [type(outcome) for outcome in outcomes] == [Unreachable] * 2
    assert len(entries(client)) == 1


def test_entries_that_break_on_a_new_connection_too_are_an_outage(proxy: RedisProxy, client: Redis) -> None:
    sink = a_sink(url_of(proxy))
    assert sink.deliver([a_row()]) == [Delivered()]
    broken: list[bytes] = []

    def hang_up(command: Sequence[bytes]) -> None:
        if command[0] == b"XADD":
            broken.append(command[0])
            raise ConnectionResetError

    proxy.answer = hang_up

    (outcome,) = sink.deliver([a_row()])

    sink.close()
    assert isinstance(outcome, Unreachable)
    assert len(broken) == 2


def test_redis_py_does_not_retry(proxy: RedisProxy) -> None:
    added: list[bytes] = []

    def hang_up(command: Sequence[bytes]) -> None:
        if command[0] == b"XADD":
            added.append(command[0])
            raise ConnectionResetError

    proxy.answer = hang_up

    (outcome,) = outcomes_of([a_row()], url_of(proxy))

    assert isinstance(outcome, Unreachable)
    assert len(added) == 1


def test_nothing_more_is_sent_to_a_redis_that_is_full(server: RedisServer, client: Redis) -> None:
    client.config_set("maxmemory", 1)

    outcomes = outcomes_of(some_rows(PIPELINE + 10), f"{server.url}?stream=bookings")

    client.config_set("maxmemory", 0)
    assert [type(outcome) for outcome in outcomes] == [Unreachable] * PIPELINE + [NotSent] * 10
    assert entries(client) == []


def test_a_missing_socket_is_an_outage(tmp_path: Path) -> None:
    (outcome,) = outcomes_of([a_row()], f"unix://{tmp_path}/redis.sock?stream=bookings")

    assert isinstance(outcome, Unreachable)


def test_nothing_is_sent_when_the_process_stops(server: RedisServer, client: Redis) -> None:
    stopping = Event()
    stopping.set()

    assert outcomes_of([a_row()], f"{server.url}?stream=bookings", stopping=stopping) == [NotSent()]
    assert entries(client) == []


def test_the_url_gives_the_user_the_password_and_the_database(
    proxy: RedisProxy, server: RedisServer, client: Redis
) -> None:
    client.acl_setuser("clerk", enabled=True, passwords=["+se cret"], keys=["*"], commands=["+@all"])
    host = f"127.0.0.1:{proxy.server_address[1]}"

    assert outcomes_of([a_row()], f"redis://clerk:se%20cret@{host}/3?stream=bookings") == [Delivered()]
    (refused,) = outcomes_of([a_row()], f"redis://clerk:wrong@{host}/3?stream=bookings")

    assert isinstance(refused, Unreachable) and "se cret" not in refused.error
    with Redis.from_url(server.url, db=3) as third:
        assert third.xlen("bookings") == 1
    assert outcomes_of([a_row()], f"{server.url}?stream=bookings&db=4") == [Delivered()]
    with Redis.from_url(server.url, db=4) as fourth:
        assert fourth.xlen("bookings") == 1


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis://127.0.0.1:6379/0", "names no stream"),
        ("redis://127.0.0.1:6379/0?stream=", "names no stream"),
        ("redis://127.0.0.1:6379/0?stream=bookings&maxlen=0", "maxlen is '0'"),
        ("redis://127.0.0.1:6379/0?stream=bookings&maxlen=", "maxlen is ''"),
        ("redis://127.0.0.1:6379/0?stream=bookings&maxlen=many", "maxlen is 'many'"),
        ("redis://127.0.0.1:6379/0?stream=bookings&stream=others", "twice"),
        ("redis://127.0.0.1:6379/0?stream=bookings&socket_timeout=1", "unknown option 'socket_timeout'"),
        ("redis://127.0.0.1:6379/first?stream=bookings", "'first'"),
        ("redis://127.0.0.1:port/0?stream=bookings", "port can't be read"),
        (
            "redis://127.0.0.1:6379/0?stream=bookings&ssl_ca_certs=ca.pem",
            "ssl_ca_certs can be used with rediss:// ",
        ),
        ("redis://127.0.0.1:6379/0?stream=bookings&db=1", "unknown option 'db'"),
    ],
)
def test_a_url_that_can_not_be_used_is_refused_with_the_reason_and_the_options(url: str, reason: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        a_sink(url)

    message = str(error.value)
    assert message.startswith("HOLDFAST_ROUTES: destination 'stream': ") and reason in message
    assert "stream: the name of the stream; maxlen: about how many" in message
