"""Where promises go. One small file a kind, chosen by the scheme of the URL."""

from collections.abc import Sequence
from threading import Event
from typing import Protocol, runtime_checkable
from urllib.parse import urlsplit

from sqlalchemy.orm import Session, sessionmaker

from domain.outbox import Outcome, Row, Settlement
from domain.outbox.routes import CONFIRMATION, Route
from domain.settings import Settings, refuse_to_start
from worker.destinations.log import Log
from worker.destinations.null import Null
from worker.destinations.webhook import Webhook
from worker.gateways.confirmation import Confirmation


class Destination(Protocol):
    """Takes rows and says what became of each.

    `deliver` gets rows in order of id and returns as many outcomes, in that order. Within
    one aggregate it sends in order, and what follows a row that did not leave is Held.
    It raises nothing that a row or a server can cause.
    """

    def deliver(self, rows: Sequence[Row]) -> Sequence[Outcome]: ...

    def close(self) -> None: ...


@runtime_checkable
class Step(Destination, Protocol):
    """A destination whose answer changes reservations."""

    def apply(self, session: Session, settlement: Settlement) -> None:
        """Write the effects of what was settled, in the same transaction."""
        ...


def open_destination(route: Route, settings: Settings, db: sessionmaker[Session], stopping: Event) -> Destination:
    """Return the destination of a route, or end the process and say why there is none.

    It begins nothing more when `stopping` is set.
    """
    if route.name == CONFIRMATION and route.url == settings.confirmation_url:
        return Confirmation(route, db, stopping, timeout_seconds=settings.confirmation_timeout_seconds)
    match urlsplit(route.url).scheme:
        case "log":
            return Log(route)
        case "null":
            return Null()
        case "http" | "https":
            return Webhook(route, stopping, timeout_seconds=settings.webhook_timeout_seconds)
        case scheme:
            return refuse_to_start(
                f"HOLDFAST_ROUTES: destination {route.name!r} has a URL of an unknown kind, {scheme!r};"
                " the kinds are log:, null:, http:// and https://."
            )
