"""How an event is written down for a destination: one small file a format, chosen by the route."""

from collections.abc import Mapping
from urllib.parse import urlsplit

from domain.outbox.routes import Route
from worker.formats import envelope, slot, standard_webhooks
from worker.formats.message import Formatter, Message
from worker.route_options import refuse_without

__all__ = ["FORMATS", "Formatter", "Message", "format_of"]

FORMATS: Mapping[str, Formatter] = {
    "envelope": envelope.write,
    "slot": slot.write,
    "standard-webhooks": standard_webhooks.write,
}


def format_of(route: Route) -> Formatter:
    """Return what writes events in the format of a route, or end the process and say what it needs."""
    return FORMATS.get(route.format) or _cloudevents(route)


def _cloudevents(route: Route) -> Formatter:
    try:
        from worker.formats import cloudevents
    except ModuleNotFoundError as error:
        refuse_without(route, error.name, f"its format {route.format!r}", "cloudevents")
    return cloudevents.structured if route.format == "cloudevents" else cloudevents.binary(urlsplit(route.url).scheme)
