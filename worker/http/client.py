"""One POST to an outside server, bounded in time and size, and what its answer means."""

import time
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import httpcore
import httpx

from domain.outbox import Delivered, Failed, Outcome, Rejected, Unreachable
from domain.runtime.settings import Network
from worker.http.deadlines import Backend, Deadline

#: Client errors that ask to be tried again: time-out, too early.
PASSING = frozenset({408, 425})

#: What is read of an answer, in bytes. A server that sends more is hung up on.
ANSWER_BYTES = 65_536

#: Who asks for more time than this has made a mistake.
LONGEST_WAIT = timedelta(days=1)

#: What is kept of an answer for an error message, in characters.
EXCERPT = 300

#: A connection that was not used for longer is not trusted to be alive.
KEEPALIVE_SECONDS = 5.0

#: What a connection that breaks raises; httpcore's errors have no root of their own.
BROKEN = (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol)


PHRASES = {status.value: status.phrase for status in HTTPStatus}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said. `retry_after` is how long it asks to be left alone."""

    status: int
    body: str
    retry_after: timedelta | None = None

    def told(self) -> str:
        """Return the answer in a line, for an error message."""
        reason = PHRASES.get(self.status, "")
        return f"{self.status} {reason}: {self.body[:EXCERPT]}".rstrip(": ")


def judged(answer: Answer) -> Outcome:
    """Return what an answer means for what was sent."""
    if 200 <= answer.status < 300:
        return Delivered()
    if answer.status == 429 or answer.status >= 500:
        return Unreachable(answer.told(), answer.retry_after, throttled=answer.status == 429)
    if answer.status in PASSING or answer.status < 400:
        return Failed(answer.told(), answer.retry_after)
    return Rejected(answer.told())


class Http:
    """A keep-alive connection pool to one server. Safe for threads.

    `allowed` are the private networks that it may be in; with None it may be anywhere.
    Raises ValueError for a URL that leads nowhere.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_seconds: float,
        connections: int,
        allowed: Sequence[Network] | None = None,
        judge: Callable[[Answer], Outcome] = judged,
    ) -> None:
        self._url, self._headers = _target(url)
        self._timeout_seconds = timeout_seconds
        self._deadline = Deadline()
        self._judge = judge
        self._pool = httpcore.ConnectionPool(
            max_connections=connections,
            keepalive_expiry=KEEPALIVE_SECONDS,
            network_backend=Backend(self._deadline, allowed),
        )

    def post(self, body: str, headers: Mapping[str, str]) -> Outcome:
        """Send a body, JSON unless the headers say otherwise. Redirects are not followed. Raises nothing."""
        self._deadline.at = time.monotonic() + self._timeout_seconds
        try:
            return self._judge(self._exchange(body.encode(), {**self._headers, **headers}))
        except (*BROKEN, UnicodeError) as error:
            # Down for all, as far as can be told from here. A row that is the only one
            # to meet this is found out by the breaker (see domain.outbox.delivery.outcomes).
            return Unreachable(f"{type(error).__name__}: {error}")

    def _exchange(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        length = {"Content-Length": str(len(body))}
        sent = [(name.encode("ascii"), value.encode("ascii")) for name, value in {**headers, **length}.items()]
        response = self._pool.handle_request(httpcore.Request(b"POST", self._url, headers=sent, content=body))
        try:
            return Answer(response.status, _read(response), _retry_after(response))
        finally:
            response.close()

    def close(self) -> None:
        self._pool.close()


def _target(url: str) -> tuple[httpcore.URL, Mapping[str, str]]:
    """Return a URL as it goes over the wire, and the headers of every request to it."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(str(error)) from error
    headers = {
        "Host": parsed.netloc.decode("ascii"),
        "User-Agent": "Holdfast/1",
        "Content-Type": "application/json",
        "Accept-Encoding": "identity",
    }
    if parsed.userinfo:
        credentials = b64encode(f"{parsed.username}:{parsed.password}".encode())
        headers["Authorization"] = f"Basic {credentials.decode('ascii')}"
    target = httpcore.URL(
        scheme=parsed.raw_scheme, host=parsed.raw_host, port=parsed.port, target=parsed.raw_path or b"/"
    )
    return target, headers


def _read(response: httpcore.Response) -> str:
    """Read an answer, up to ANSWER_BYTES. The status counts, even if the rest of it does not come."""
    read = b""
    with suppress(*BROKEN):
        for chunk in response.iter_stream():
            read += chunk
            if len(read) > ANSWER_BYTES:
                break
    # Without NUL, as PostgreSQL holds everything but that in a text.
    return read[:ANSWER_BYTES].decode(errors="replace").replace("\0", "")


def _retry_after(response: httpcore.Response) -> timedelta | None:
    """Return what `Retry-After` asks for, in seconds or as a date. Source: RFC 9110 §10.2.3."""
    written = next((value for name, value in response.headers if name.lower() == b"retry-after"), b"")
    asked = written.decode("latin-1").strip()
    try:
        if asked.isascii() and asked.isdigit():
            wait = timedelta(seconds=int(asked))
        else:
            wait = parsedate_to_datetime(asked) - datetime.now(UTC)
    except (TypeError, ValueError, OverflowError):
        return None
    return min(max(wait, timedelta(0)), LONGEST_WAIT)
