"""The feed of events over HTTP: pages, and streams of server-sent events."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, cast
from uuid import UUID

from litestar import Request, Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.params import Parameter
from sqlalchemy.orm import Session

from api.bulkheads import ClientBulkhead
from api.feed.reader import BATCH
from api.feed.schemas import EventPage
from api.feed.streams import MEDIA_TYPE, Streams
from api.http.decoding import END
from api.http.headers import header_of
from api.http.responses import reading
from domain import feed
from domain.feed import Filter, Page
from domain.outbox import Routes
from domain.runtime.errors import Invalid, NoFeed, PositionGone

#: In place of a position: after all events that there are now.
NEWEST = "newest"

#: A position has fewer digits than a bigint may have.
POSITION = "[0-9]{1,18}"

JSON = "application/json"

After = Annotated[
    str | None,
    Parameter(
        pattern=f"^({POSITION}|{NEWEST}){END}",
        description=f"The position of the last event seen, 0 for none, or `{NEWEST}` for what comes from now on."
        " Without it, the oldest event that there is comes first",
    ),
]
EventType = Annotated[
    str | None,
    Parameter(pattern=f"^[a-z_.*]{{1,50}}{END}", description="The type of the events, with `*` for any characters"),
]
Limit = Annotated[int, Parameter(ge=1, le=1_000, description="Maximum number of events of a page")]


@get("/events", responses=reading(NoFeed, PositionGone), tags=["events"], operation="events.read")
async def list_events(
    request: Request[Any, Any, Any],
    feed_pages: ClientBulkhead,
    feed_catch_up: ClientBulkhead,
    routes: Routes,
    after: After = None,
    type: EventType = None,  # noqa: A002  # the name that clients know
    reservation: UUID | None = None,
    limit: Limit = 100,
) -> Response[EventPage]:
    """Read the feed: every event once, in order for each reservation.

    The answer is a page. With `Accept: text/event-stream` it is a stream of server-sent events: the `id` of each is its
    position, and its `data` the event as in a page. It ends when the credentials expire or are revoked, with an event
    `problem` that has no `id`.
    """
    feed.require(routes)
    wanted, start = Filter(type=type, aggregate_id=reservation), _last_event_id(request) or after
    is_stream = request.accept.best_match([JSON, MEDIA_TYPE]) == MEDIA_TYPE
    most = min(limit, BATCH) if is_stream else limit

    def act(session: Session) -> Page:
        return feed.read(session, wanted, after=_position(session, start), limit=most)

    # So however many streams begin far back, pages are read as fast as without them.
    page = await (feed_catch_up if is_stream else feed_pages).run(act)
    if is_stream:
        streams: Streams = request.app.state.streams
        return streams.open(feed_catch_up, wanted, page, header_of(_scope(request), "Authorization"))
    return Response(EventPage.of(page), headers={"Cache-Control": "no-store", "Vary": "Accept"})


def _last_event_id(request: Request[Any, Any, Any]) -> str | None:
    """Return the position that a client sends when it connects again. Raises Invalid."""
    sent = header_of(_scope(request), "Last-Event-ID")
    if sent is not None and not re.fullmatch(POSITION, sent):
        raise Invalid("Last-Event-ID", "it must be the id of an event of the feed, such as 17")
    return sent


def _scope(request: Request[Any, Any, Any]) -> Mapping[str, Any]:
    return cast(Mapping[str, Any], request.scope)


def _position(session: Session, start: str | None) -> int | None:
    if start is None:
        return None
    if not re.fullmatch(f"{POSITION}|{NEWEST}", start):
        raise Invalid("after", f"it must be a number, or {NEWEST}")  # with a line break at the end
    return feed.newest(session) if start == NEWEST else int(start)


ROUTES: Sequence[HTTPRouteHandler] = (list_events,)
