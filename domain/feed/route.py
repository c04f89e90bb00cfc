"""The route of the feed: a destination of the outbox whose URL is `feed:`."""

from collections.abc import Sequence
from urllib.parse import urlsplit

from domain.outbox import Route, Routes
from domain.runtime.errors import ConfigurationError, NoFeed

SCHEME = "feed"

#: The route of the feed without a routes file.
FEED = Route(name="feed", url=f"{SCHEME}:")


def require(routes: Routes) -> None:
    """Raise NoFeed if no destination appends events to the feed."""
    if not _feeds(routes):
        raise NoFeed


def require_one(routes: Routes) -> None:
    """Raise ConfigurationError if there are several such destinations.

    Each would append in an order of its own, so the events of one reservation could be out of order.
    """
    names = _feeds(routes)
    if len(names) > 1:
        raise ConfigurationError(
            f"HOLDFAST_ROUTES: {' and '.join(map(repr, names))} both have the URL {SCHEME}:, and there is one feed"
            " only. Keep one of them, with the `events` of all."
        )


def _feeds(routes: Routes) -> Sequence[str]:
    return [route.name for route in routes.sinks if urlsplit(route.url).scheme == SCHEME]
