"""One POST to an outside server, bounded in time and size, and what its answer means."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import httpx

from domain.outbox import Delivered, Failed, Outcome, Rejected, Unreachable

#: Client errors that ask to be tried again: time-out, too early.
PASSING = frozenset({408, 425})

#: What is read of an answer, in bytes. A server that sends more is hung up on.
ANSWER_BYTES = 65_536

#: What is kept of an answer for an error message, in characters.
EXCERPT = 300

USER_AGENT = "Holdfast/1"


class Http:
    """A keep-alive connection pool to one server. Safe for threads."""

    def __init__(self, url: str, *, timeout_seconds: float, connections: int) -> None:
        self._url = url
        self._timeout_seconds = timeout_seconds
        self._client = httpx.Client(
            timeout=timeout_seconds,
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
            headers={"User-Agent": USER_AGENT, "Content-Type": "application/json"},
            follow_redirects=False,
            trust_env=False,
        )

    def post(self, body: str, headers: Mapping[str, str]) -> Outcome:
        """Send a JSON body. Returns Delivered, Rejected, Failed or Unreachable; raises nothing."""
        deadline = time.monotonic() + self._timeout_seconds
        try:
            with self._client.stream("POST", self._url, content=body, headers=headers) as response:
                return _outcome(response, _read(response, deadline))
        except httpx.HTTPError as error:
            # Down for all, as far as can be told from here. A row that is the only one
            # to meet this is found out by the breaker (see domain.outbox.outcomes).
            return Unreachable(f"{type(error).__name__}: {error}")

    def close(self) -> None:
        self._client.close()


def _read(response: httpx.Response, deadline: float) -> str:
    """Read an answer, up to ANSWER_BYTES and until the deadline, however slowly it trickles in."""
    read = b""
    for chunk in response.iter_bytes():
        read += chunk
        if len(read) > ANSWER_BYTES:
            break
        if time.monotonic() > deadline:
            raise httpx.ReadTimeout("the answer did not end in time")
    return read[:ANSWER_BYTES].decode(errors="replace")


def _outcome(response: httpx.Response, body: str) -> Outcome:
    said = f"{response.status_code} {response.reason_phrase}: {body[:EXCERPT]}".rstrip(": ")
    status = response.status_code
    if response.is_success:
        return Delivered()
    if status == 429 or response.is_server_error:
        return Unreachable(said, _retry_after(response))
    if status in PASSING or not response.is_client_error:
        return Failed(said)
    return Rejected(said)


def _retry_after(response: httpx.Response) -> timedelta | None:
    """Return what `Retry-After` asks for, in seconds or as a date. Source: RFC 9110 §10.2.3."""
    written = response.headers.get("retry-after", "").strip()
    if written.isascii() and written.isdigit():
        return timedelta(seconds=min(int(written), 86_400))
    try:
        wait = parsedate_to_datetime(written) - datetime.now(UTC)
    except (TypeError, ValueError):
        return None
    return max(wait, timedelta(0))
