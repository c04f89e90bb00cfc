"""One POST to an outside server, bounded in time and size, and what the response means for the row that was sent."""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import httpcore
import httpx

from domain.outbox import Cause, Delivered, Outcome, Rejected, Unreachable
from domain.runtime.redaction import redact
from domain.runtime.settings import Network
from worker.http import credentials
from worker.http.connections import CONNECTION_ERRORS, Connections
from worker.http.deadlines import Deadline
from worker.http.unread import end_connection_with_unread_bytes

#: What responses mean that do not reject what was sent, by their status. Those of 520 to 530 are Cloudflare's.
CAUSES = {
    **dict.fromkeys(range(300, 400), Cause.DENIED),
    **dict.fromkeys((401, 402, 403, 404, 405, 407, 421, 426), Cause.DENIED),
    # The same request may succeed later: request timeout, too early.
    **dict.fromkeys((408, 425), Cause.ERROR),
    **dict.fromkeys((429, 503), Cause.LOAD),
    **dict.fromkeys((502, 504, *range(521, 528), 530), Cause.OUTAGE),
}

#: The bytes of a response's body that are read. The connection to a server that sends more is closed.
MAX_RESPONSE_BYTES = 65_536

#: The pieces of a body that are read, as each takes processor time, be it a single byte. A body of MAX_RESPONSE_BYTES
#: has about half as many if each packet is a piece. The connection to a server that sends more is closed.
MAX_PIECES = 100

#: How long the body of a 2xx is waited for that nobody uses. It is read so that its connection can be used again. The
#: body of an ordinary server follows the head at once, or after a round trip, which takes this long around the world.
SUCCESS_BODY_SECONDS = 0.3

#: How long the body of any other response is waited for. Its beginning tells people why something was not taken.
REFUSAL_BODY_SECONDS = 2.0

#: No Retry-After counts for more than this: a server that asks for a longer wait is mistaken.
LONGEST_WAIT = timedelta(days=1)

#: The part of a response's body that an error message quotes, in characters.
EXCERPT_LENGTH = 300

#: The part in which secrets are looked for before it is cut: none is cut in two, and then not recognised.
SEARCHED_LENGTH = 4_096

PHRASES = {status.value: status.phrase for status in HTTPStatus}


@dataclass(frozen=True, slots=True)
class Response:
    """The response of a server. `retry_after` is how long the server asks its client to wait."""

    status: int
    body: str
    retry_after: timedelta | None = None

    def summary(self) -> str:
        """Return the response in one line, for an error message."""
        phrase = PHRASES.get(self.status, "")
        body = redact(self.body[:SEARCHED_LENGTH])[:EXCERPT_LENGTH]
        return f"{self.status} {phrase}: {body}".rstrip(": ")


def outcome_of(response: Response) -> Outcome:
    """Return what a response means for the row that was sent."""
    if _is_success(response.status):
        return Delivered()
    cause = CAUSES.get(response.status, Cause.ERROR if response.status >= 500 else None)
    return Unreachable(response.summary(), response.retry_after, cause) if cause else Rejected(response.summary())


def _is_success(status: int) -> bool:
    return 200 <= status < 300


class Http:
    """A pool of keep-alive connections to one server. Safe for threads.

    The server must be at a public address or in one of the `allowed` networks; with None it may be anywhere. Whoever
    `reads_answers` gets the body of a 2xx whole, if it comes in time.
    Raises ValueError for a URL that names no server.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_seconds: float,
        connections: int,
        allowed: Sequence[Network] | None = None,
        reads_answers: bool = False,
    ) -> None:
        self._url, self._headers, self._credentials = _target(url)
        self._timeout_seconds = timeout_seconds
        self._success_seconds = timeout_seconds if reads_answers else SUCCESS_BODY_SECONDS
        self._deadline = Deadline()
        self._connections = Connections(self._deadline, connections=connections, allowed=allowed)

    def post(
        self, body: str, headers: Mapping[str, str], interpret: Callable[[Response], Outcome] = outcome_of
    ) -> Outcome:
        """Send a body, as JSON unless the headers say otherwise. Redirects are not followed. Raises nothing."""
        self._deadline.start(self._timeout_seconds)
        try:
            return interpret(self._exchange(body.encode(), {**self._headers, **headers}))
        except (*CONNECTION_ERRORS, UnicodeError) as error:
            return Unreachable(f"{type(error).__name__}: {error}")

    def _exchange(self, body: bytes, headers: Mapping[str, str]) -> Response:
        length = {"Content-Length": str(len(body))}
        sent = [(name.encode("ascii"), value.encode("ascii")) for name, value in {**headers, **length}.items()]
        with self._connections.stream(b"POST", self._url, sent, body) as response:
            self._deadline.shorten(self._success_seconds if _is_success(response.status) else REFUSAL_BODY_SECONDS)
            answered = credentials.without(self._credentials, _read(response))
            return Response(response.status, answered, _retry_after(response))

    def close(self) -> None:
        self._connections.close()


def _target(url: str) -> tuple[httpcore.URL, Mapping[str, str], re.Pattern[str] | None]:
    """Return a URL as httpcore takes it, the headers of every request to it, and what finds its credentials."""
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
    if encoded := credentials.basic(parsed):
        headers["Authorization"] = f"Basic {encoded}"
    target = httpcore.URL(
        scheme=parsed.raw_scheme, host=parsed.raw_host, port=parsed.port, target=parsed.raw_path or b"/"
    )
    return target, headers, credentials.pattern_of(parsed)


def _read(response: httpcore.Response) -> str:
    """Read a body, up to MAX_RESPONSE_BYTES, MAX_PIECES and the deadline. The status counts wherever the body ends."""
    read = b""
    with suppress(*CONNECTION_ERRORS):
        for pieces, piece in enumerate(response.iter_stream(), start=1):
            read += piece
            if len(read) > MAX_RESPONSE_BYTES or pieces == MAX_PIECES:
                break
    end_connection_with_unread_bytes(response)
    # Without NUL, which PostgreSQL's text can't hold.
    return read[:MAX_RESPONSE_BYTES].decode(errors="replace").replace("\0", "")


def _retry_after(response: httpcore.Response) -> timedelta | None:
    """Return the wait that `Retry-After` asks for, in seconds or as a date. Source: RFC 9110 §10.2.3."""
    raw = next((value for name, value in response.headers if name.lower() == b"retry-after"), b"")
    written = raw.decode("latin-1").strip()
    try:
        if written.isascii() and written.isdigit():
            # As a float, a number of any length can be compared. Only then is it a time.
            wait = timedelta(seconds=min(float(written), LONGEST_WAIT.total_seconds()))
        else:
            wait = parsedate_to_datetime(written) - datetime.now(UTC)
    except (TypeError, ValueError, OverflowError):
        return None
    return min(max(wait, timedelta(0)), LONGEST_WAIT)
