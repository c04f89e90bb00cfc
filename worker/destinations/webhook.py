"""`https://` posts the envelope, signed by the Standard Webhooks scheme where there is a secret."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from threading import Event

from standardwebhooks import Webhook as Signer

from domain.outbox import Outcome, Row
from domain.outbox.routes import Route
from domain.settings import refuse_to_start
from worker.calls import Calls
from worker.envelope import trace, wrap
from worker.http import Http

SECRET = re.compile(r"(whsec_)?[A-Za-z0-9+/]+={0,2}")


class Webhook:
    """2xx is success. Redirects are not followed. `webhook-id` is the event's id, at every attempt."""

    def __init__(self, route: Route, stopping: Event, *, timeout_seconds: float) -> None:
        self._http = Http(route.url, timeout_seconds=timeout_seconds, connections=route.concurrency)
        self._calls = Calls(route.concurrency, stopping)
        self._signer = _signer(route)

    def deliver(self, rows: Sequence[Row]) -> Sequence[Outcome]:
        return self._calls.deliver(rows, self._post)

    def _post(self, row: Row) -> Outcome:
        body = wrap(row)
        return self._http.post(body, self._headers(row, body))

    def _headers(self, row: Row, body: str) -> Mapping[str, str]:
        moment = datetime.now(UTC)
        headers = trace(row)
        headers |= {"webhook-id": str(row.event_id), "webhook-timestamp": str(int(moment.timestamp()))}
        if self._signer:
            headers["webhook-signature"] = self._signer.sign(str(row.event_id), moment, body)
        return headers

    def close(self) -> None:
        self._calls.close()
        self._http.close()


def _signer(route: Route) -> Signer | None:
    if route.secret is None:
        return None
    # The library passes over what is no base64, and would sign with another secret.
    if SECRET.fullmatch(route.secret):
        with suppress(ValueError):
            return Signer(route.secret)
    return refuse_to_start(
        f"HOLDFAST_ROUTES: the secret of destination {route.name!r} must be whsec_ followed by base64."
    )
