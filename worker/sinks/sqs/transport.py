"""The transport of boto3's requests: each response is bounded in time and size.

boto3's own transport bounds each read alone. A server that sends a byte now and then could keep a thread for ever,
even when the worker is stopped.
"""

from io import BytesIO
from typing import Any

import httpcore
import urllib3
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.exceptions import HTTPClientError
from botocore.utils import get_environ_proxies
from urllib3.exceptions import LocationParseError

from domain.runtime.urls import ESCAPES
from worker.http.connections import CONNECTION_ERRORS, Connections
from worker.http.deadlines import Deadline
from worker.http.unread import end_connection_with_unread_bytes

#: The bytes of a response that are read. A response about ten messages has less than a tenth of this.
MAX_RESPONSE_BYTES = 262_144

#: The pieces of a response that are read, as each takes processor time, be it a single byte. SQS sends a few.
MAX_PIECES = 1_000

#: The error of urllib3 would quote the URL, which may hold a password.
UNREADABLE_PROXY = f"the proxy of HTTPS_PROXY, or of HTTP_PROXY, can't be read: {ESCAPES}"


class ConnectionBroke(HTTPClientError):  # type: ignore[misc]
    """Raised when a request gets no response. boto3 passes it on to its caller."""

    fmt = "{error}"


class Transport:
    """A pool of keep-alive connections, through the proxy that the environment names. Safe for threads.

    `ca_bundle` is the path of further certificates to trust, if boto3 is configured to trust any.
    """

    def __init__(self, client: Any, *, timeout_seconds: float, connections: int, ca_bundle: str | None) -> None:
        self._timeout_seconds = timeout_seconds
        self._deadline = Deadline()
        context = httpcore.default_ssl_context()
        if ca_bundle:
            context.load_verify_locations(ca_bundle)
        self._connections = Connections(
            self._deadline, connections=connections, context=context, proxy=_proxy(client.meta.endpoint_url)
        )
        client.meta.events.register("before-send", self._send)

    def close(self) -> None:
        self._connections.close()

    def _send(self, request: AWSPreparedRequest, **_: Any) -> AWSResponse:
        """Send a request. boto3 takes what this event handler returns for the response. Raises ConnectionBroke."""
        self._deadline.start(self._timeout_seconds)
        try:
            sent = list(request.headers.items())
            with self._connections.stream(request.method, request.url, sent, request.body) as response:
                body = _read(response)
                end_connection_with_unread_bytes(response)
        except httpcore.TimeoutException as error:
            raise ConnectionBroke(error=f"SQS did not answer within {self._timeout_seconds:g} s") from error
        except CONNECTION_ERRORS as error:
            raise ConnectionBroke(error=f"{type(error).__name__}: {error}") from error
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in response.headers}
        raw = urllib3.HTTPResponse(BytesIO(body), preload_content=False)
        return AWSResponse(request.url, response.status, headers, raw)


def _read(response: httpcore.Response) -> bytes:
    body = b""
    for pieces, piece in enumerate(response.iter_stream(), start=1):
        body += piece
        if len(body) > MAX_RESPONSE_BYTES:
            raise httpcore.ReadError(f"the answer has more than {MAX_RESPONSE_BYTES:,} bytes")
        if pieces > MAX_PIECES:
            raise httpcore.ReadError(f"the answer has more than {MAX_PIECES:,} chunks")
    return body


def _proxy(url: str) -> httpcore.Proxy | None:
    found = get_environ_proxies(url).get(url.partition(":")[0])
    if not found:
        return None
    try:
        parsed = urllib3.util.parse_url(found if "://" in found else f"http://{found}")
    except LocationParseError:
        raise ValueError(UNREADABLE_PROXY) from None
    credentials = parsed.auth.split(":", 1) if parsed.auth else None
    auth = (credentials[0], credentials[-1]) if credentials else None
    return httpcore.Proxy(parsed._replace(auth=None).url, auth)
