"""The feed: every event of the `feed:` destination once, at a position of its own, to be read in order."""

from domain.feed.append import append
from domain.feed.pages import MAX_POSITION, FeedEvent, Filter, Page, newest, read
from domain.feed.prune import prune
from domain.feed.route import FEED, SCHEME, has_feed, require_one

__all__ = [
    "FEED",
    "MAX_POSITION",
    "SCHEME",
    "FeedEvent",
    "Filter",
    "Page",
    "append",
    "has_feed",
    "newest",
    "prune",
    "read",
    "require_one",
]
