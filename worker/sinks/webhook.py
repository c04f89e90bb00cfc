"""`https://` posts events in the format of the route, signed by the Standard Webhooks scheme if there is a secret."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress

from standardwebhooks import Webhook as Signer

from domain.outbox import Cause, Outcome, Route, Row, Unreachable
from domain.runtime.settings import Settings
from worker.formats import Message, format_of
from worker.http.client import Http, Response, outcome_of
from worker.ordering.calling_threads import most
from worker.ordering.ordered_calls import OrderedCalls
from worker.ordering.pace import Pace
from worker.route_options import timeout_of, wrong_route

SECRET = re.compile(r"(whsec_)?[A-Za-z0-9+/]+={0,2}")


class Webhook:
    """2xx is success. Redirects are not followed. `webhook-id` is the event's id, at every attempt."""

    def __init__(self, route: Route, settings: Settings, pace: Pace) -> None:
        timeout_seconds = timeout_of(route, settings)
        try:
            self._http = Http(
                route.url,
                timeout_seconds=timeout_seconds,
                connections=most(route.concurrency),
                allowed=settings.webhook_private_networks,
            )
        except ValueError as error:
            raise wrong_route(route, f"its URL can't be used: {error}") from error
        self._calls = OrderedCalls(route.concurrency, pace, timeout_seconds=timeout_seconds)
        self._format = format_of(route)
        self._signers = [_signer(route, secret) for secret in route.secret]

    def deliver(self, rows: Sequence[Row]) -> Sequence[Outcome]:
        return self._calls.deliver(rows, self._post)

    def _post(self, row: Row) -> Outcome:
        message = self._format(row)
        return self._http.post(message.body, self._headers(row, message), _outcome_of)

    def _headers(self, row: Row, message: Message) -> Mapping[str, str]:
        moment, event_id = row.fetched_at, str(row.event_id)
        headers = {"Content-Type": message.content_type, **message.attributes}
        headers |= {"webhook-id": event_id, "webhook-timestamp": str(int(moment.timestamp()))}
        if self._signers:
            signatures = (signer.sign(event_id, moment, message.body) for signer in self._signers)
            headers["webhook-signature"] = " ".join(signatures)
        return headers

    def close(self) -> None:
        self._calls.close()
        self._http.close()


def _outcome_of(response: Response) -> Outcome:
    """Return what a response means. 410 means that the consumer wants no more events. Source: Standard Webhooks."""
    return Unreachable(response.summary(), cause=Cause.GONE) if response.status == 410 else outcome_of(response)


def _signer(route: Route, secret: str) -> Signer:
    # The library skips characters that are no base64, and would sign with another secret than was meant.
    if SECRET.fullmatch(secret):
        with suppress(ValueError):
            return Signer(secret)
    raise wrong_route(route, "each of its secrets must be whsec_ followed by base64")
