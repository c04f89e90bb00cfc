"""One POST to an outside server, bounded in time and size, and what its answer means."""

import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import httpx

from domain.outbox import Delivered, Failed, Outcome, Rejected, Unreachable
from worker.deadline import Deadline, transport

#: Client errors that ask to be tried again: time-out, too early.
PASSING = frozenset({408, 425})

#: What is read of an answer, in bytes. A server that sends more is hung up on.
ANSWER_BYTES = 65_536

#: Who asks for more time than this has made a mistake.
LONGEST_WAIT = timedelta(days=1)

#: What is kept of an answer for an error message, in characters.
EXCERPT = 300

USER_AGENT = "Holdfast/1"


class Http:
    """A keep-alive connection pool to one server. Safe for threads."""

    def __init__(self, url: str, *, timeout_seconds: float, connections: int) -> None:
        self._url = url
        self._timeout_seconds = timeout_seconds
        self._deadline = Deadline()
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._client = httpx.Client(
            timeout=timeout_seconds,
            transport=transport(self._deadline, limits),
            headers={"User-Agent": USER_AGENT, "Content-Type": "application/json", "Accept-Encoding": "identity"},
            follow_redirects=False,
            trust_env=False,
        )

    def post(self, body: str, headers: Mapping[str, str]) -> Outcome:
        """Send a JSON body. Returns Delivered, Rejected, Failed or Unreachable; raises nothing."""
        self._deadline.at = time.monotonic() + self._timeout_seconds
        try:
            with self._client.stream("POST", self._url, content=body, headers=headers) as response:
                return _outcome(response, _read(response))
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            # Down for all, as far as can be told from here. A row that is the only one
            # to meet this is found out by the breaker (see domain.outbox.outcomes).
            return Unreachable(f"{type(error).__name__}: {error}")

    def close(self) -> None:
        self._client.close()


def _read(response: httpx.Response) -> str:
    """Read an answer, up to ANSWER_BYTES. The status counts, even if the rest of it does not come."""
    read = b""
    with suppress(httpx.HTTPError):
        for chunk in response.iter_raw():
            read += chunk
            if len(read) > ANSWER_BYTES:
                break
    # Without NUL, as PostgreSQL holds everything but that in a text.
    return read[:ANSWER_BYTES].decode(errors="replace").replace("\0", "")


def _outcome(response: httpx.Response, body: str) -> Outcome:
    said = f"{response.status_code} {response.reason_phrase}: {body[:EXCERPT]}".rstrip(": ")
    status = response.status_code
    if response.is_success:
        return Delivered()
    if status == 429 or response.is_server_error:
        return Unreachable(said, _retry_after(response), throttled=status == 429)
    if status in PASSING or not response.is_client_error:
        return Failed(said)
    return Rejected(said)


def _retry_after(response: httpx.Response) -> timedelta | None:
    """Return what `Retry-After` asks for, in seconds or as a date. Source: RFC 9110 §10.2.3."""
    written = response.headers.get("retry-after", "").strip()
    try:
        if written.isascii() and written.isdigit():
            wait = timedelta(seconds=int(written))
        else:
            wait = parsedate_to_datetime(written) - datetime.now(UTC)
    except (TypeError, ValueError, OverflowError):
        return None
    return min(max(wait, timedelta(0)), LONGEST_WAIT)
