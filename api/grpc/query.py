"""Query: the reservations of a window of time, as a stream that goes as fast as its client reads."""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sqlalchemy.orm import Session, sessionmaker

from api.grpc.calls import Call
from api.grpc.messages import MAX_ID_CHARACTERS, instant_in, status_in, text_in
from api.grpc.proto import reservation_pb2 as proto
from api.grpc.time_limits import TimeLimit
from domain.access import EVERYTHING, Reach
from domain.reservations import Filter, Window
from domain.reservations.streaming import BEGINNING, Found, stream
from domain.runtime import database
from domain.runtime.errors import DatabaseUnavailable, Invalid
from domain.runtime.settings import Settings

#: The streams at a time, each with a thread and a connection.
STREAMS = 8

#: The reservations that are read together, and how long a client may take to read as many. PostgreSQL itself ends a
#: transaction that has waited for 5 s.
PART, PART_SECONDS = 1_000, 4.0

#: A stream rests at most for this time after a part. With the time that its client takes, that is less than 5 s.
MOST_REST_SECONDS = 0.5

#: A transaction is not used for longer: its snapshot keeps PostgreSQL from removing what others have changed since, and
#: they would be slower with each second. The stream continues in another one, after the last reservation that was read.
SNAPSHOT_SECONDS = 2.0

#: A part is read within this time, or PostgreSQL ends the reading. If it does not answer at all, the stream ends a
#: little later.
STATEMENT_SECONDS, READ_SECONDS = 5, 6.0

_SECOND = 1_000_000


class Query:
    """The method, with its connections."""

    def __init__(self, settings: Settings, are_others_served: Callable[[], bool]) -> None:
        self._are_others_served = are_others_served
        self._sending = TimeLimit(PART_SECONDS)
        self._threads = ThreadPoolExecutor(STREAMS, thread_name_prefix="query")
        self._engine = database.connect(
            settings,
            connections=STREAMS,
            statement_seconds=STATEMENT_SECONDS,
            transaction_seconds=SNAPSHOT_SECONDS + PART_SECONDS + STATEMENT_SECONDS,
            by_index=True,
        )
        self._db = database.sessions(self._engine)

    def start(self) -> None:
        """Begin to look for clients that read too slowly."""
        self._sending.start()

    def close(self) -> None:
        """Close the connections. The streams have ended."""
        self._sending.close()
        self._threads.shutdown(wait=False)
        self._engine.dispose()

    def stream(self, call: Call, request: proto.QueryRequest) -> Iterator[bytes]:
        """Yield the reservations that overlap a window of time, as messages.

        Raises DatabaseUnavailable, and NotAuthenticated when the credentials of its client have ended.
        """
        reading = parts(self._db, *wanted_of(request), call.reach)
        try:
            while part := self._next(reading):
                began = time.monotonic()
                with self._sending.step(call.context):
                    for found in part:
                        call.require_credentials()
                        yield _message(found)
                if len(part) < PART:
                    break  # It was the last one.
                # The threads of a process take turns on one processor, so a stream would slow all other calls down.
                if self._are_others_served():
                    time.sleep(min(time.monotonic() - began, MOST_REST_SECONDS))
        finally:
            self._threads.submit(reading.close)

    def _next(self, reading: Generator[Sequence[Found]]) -> Sequence[Found]:
        """Return the next part, or none after the last one. A thread of its own waits for a database that hangs."""
        found = self._threads.submit(next, reading, ())
        try:
            return found.result(READ_SECONDS)
        except TimeoutError:
            found.cancel()
            raise DatabaseUnavailable from None


def wanted_of(request: proto.QueryRequest) -> tuple[Filter, Window]:
    """Return what a request asks for. Raises Invalid."""
    # Stored periods have whole microseconds. So rounded outwards, the bounds are overlapped by the same ones.
    start = instant_in("start", request.start) if request.HasField("start") else None
    end = instant_in("end", request.end, round_up=True) if request.HasField("end") else None
    wanted = Filter(
        guest_id=text_in("user_id", request.user_id, MAX_ID_CHARACTERS) or None,
        sku=text_in("resource_id", request.resource_id, MAX_ID_CHARACTERS) or None,
        status=status_in("status", request.status),
    )
    if start is not None and end is not None and start >= end:
        raise Invalid("end", "it must be later than start")
    return wanted, Window(ends_after=start, starts_before=end)


def parts(
    db: sessionmaker[Session], wanted: Filter, window: Window, reach: Reach = EVERYTHING
) -> Generator[Sequence[Found]]:
    """Yield the reservations of a window part by part, from one short transaction after the other."""
    place = BEGINNING
    has_more = True
    while has_more:
        with db() as session:
            has_more, began = False, time.monotonic()
            for part in stream(session, wanted, window, after=place, size=PART, reach=reach):
                yield part
                place = part[-1].place
                if has_more := time.monotonic() - began > SNAPSHOT_SECONDS:
                    break


def _message(found: Found) -> Any:
    message = proto.Reservation(
        id=str(found.id),
        user_id=found.guest_id or "",
        status=found.status,
        resource_id=found.sku,
        note=found.note or "",
    )
    for timestamp, instant in ((message.start, found.start), (message.end, found.end)):
        timestamp.seconds, microseconds = divmod(instant, _SECOND)
        timestamp.nanos = microseconds * 1_000
    return message.SerializeToString()
