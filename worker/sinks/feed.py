"""`feed:` appends events to the feed, which clients read from the API.

It calls nobody: the events are appended in the transaction that settles their rows, so each is in the feed once.
"""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from domain import feed
from domain.outbox import DELIVERED, Outcome, Route, Row, Settlement
from domain.runtime.settings import Settings
from worker.ordering.pace import Pace
from worker.route_options import wrong_route


class Feed:
    def __init__(self, route: Route, settings: Settings, pace: Pace) -> None:
        if route.url != f"{feed.SCHEME}:":
            raise wrong_route(route, f"its URL is {feed.SCHEME}: with nothing behind it")
        if route.format != Route.model_fields["format"].default:
            raise wrong_route(route, f"events in the feed have no other format; leave out {route.format!r}")

    def deliver(self, rows: Sequence[Row]) -> Sequence[Outcome]:
        return [DELIVERED] * len(rows)

    def apply(self, session: Session, settlement: Settlement) -> None:
        """Append the events to the feed, in the transaction that settles their rows."""
        feed.append(session, [row.id for row, _ in settlement.processed])

    def close(self) -> None:
        pass
