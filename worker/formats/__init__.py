"""How an event is written down for a destination: one small file a format, chosen by the route."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from domain.outbox import Row
from domain.outbox.routes import Route
from worker.formats.envelope import trace, wrap


@dataclass(frozen=True, slots=True)
class Message:
    """What goes over the wire. `attributes` travel beside the body, as the transport's own headers do."""

    body: str
    content_type: str = "application/json"
    attributes: Mapping[str, str] = field(default_factory=dict)


Formatter = Callable[[Row], Message]


def format_of(route: Route) -> Formatter:
    """Return what writes events in the format of a route."""
    return FORMATS[route.format]


def envelope(row: Row) -> Message:
    return Message(wrap(row), attributes=trace(row))


FORMATS: Mapping[str, Formatter] = {"envelope": envelope}
