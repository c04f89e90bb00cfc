"""What a format makes of an event: a message."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from domain.outbox import Row


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent to a destination. `attributes` go beside the body, as headers of the transport."""

    body: str
    content_type: str = "application/json"
    attributes: Mapping[str, str] = field(default_factory=dict)


Formatter = Callable[[Row], Message]
