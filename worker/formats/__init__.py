"""How an event is written down for a destination: one small file a format, chosen by the route."""

from collections.abc import Mapping
from urllib.parse import urlsplit

from domain.outbox.routes import Route
from domain.settings import refuse_to_start
from worker.formats import envelope, slot, standard_webhooks
from worker.formats.message import Formatter, Message

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
        refuse_to_start(
            f"HOLDFAST_ROUTES: destination {route.name!r} needs the package {error.name!r} for its format"
            f" {route.format!r}, and it is not installed. Run: bin/install cloudevents"
            " (that is: pip install -e '.[cloudevents]')"
        )
    return cloudevents.structured if route.format == "cloudevents" else cloudevents.binary(urlsplit(route.url).scheme)
