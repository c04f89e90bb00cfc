"""Formats: how an event is written for a destination. There is one small module per format; the route chooses one."""

from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from domain.outbox import Route
from worker.formats import envelope, slot, standard_webhooks
from worker.formats.message import Formatter, Message
from worker.route_options import extra_for, wrong_route

__all__ = ["FORMATS", "Formatter", "Message", "format_of", "require_known"]


def format_of(route: Route) -> Formatter:
    """Return the function that writes events in the format of a route.

    Raises ConfigurationError if there is no such format, or if a package that it needs is missing.
    """
    require_known(route)
    return FORMATS[route.format](route)


def require_known(route: Route) -> None:
    """Raise ConfigurationError unless the format of a route exists."""
    if route.format not in FORMATS:
        raise wrong_route(route, f"there is no format {route.format!r}; the formats are {', '.join(FORMATS)}")


def _cloudevents(route: Route) -> Formatter:
    with extra_for(route, f"its format {route.format!r}", "cloudevents"):
        from worker.formats import cloudevents
    return cloudevents.structured


def _cloudevents_binary(route: Route) -> Formatter:
    with extra_for(route, f"its format {route.format!r}", "cloudevents"):
        from worker.formats import cloudevents
    return cloudevents.binary(urlsplit(route.url).scheme)


#: All formats, by the name that a route uses.
FORMATS: Mapping[str, Callable[[Route], Formatter]] = {
    "envelope": lambda _: envelope.write,
    "slot": lambda _: slot.write,
    "cloudevents": _cloudevents,
    "cloudevents-binary": _cloudevents_binary,
    "standard-webhooks": lambda _: standard_webhooks.write,
}
