"""What a format makes of an event."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from domain.outbox import Row


@dataclass(frozen=True, slots=True)
class Message:
    """What goes over the wire. `attributes` travel beside the body, as the transport's own headers do."""

    body: str
    content_type: str = "application/json"
    attributes: Mapping[str, str] = field(default_factory=dict)


Formatter = Callable[[Row], Message]
