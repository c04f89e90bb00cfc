"""The feed: every event of the `feed:` destination once, at a position of its own, to be read in order."""

from domain.feed.append import append
from domain.feed.pages import FeedEvent, Filter, Page, newest, read
from domain.feed.prune import prune
from domain.feed.route import FEED, SCHEME, require, require_one

__all__ = [
    "FEED",
    "SCHEME",
    "FeedEvent",
    "Filter",
    "Page",
    "append",
    "newest",
    "prune",
    "read",
    "require",
    "require_one",
]
