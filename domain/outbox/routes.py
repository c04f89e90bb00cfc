"""Which destination wants which events."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from domain.outbox.delivery.outcomes import Retries

#: The destination behind CONFIRMATION_URL.
CONFIRMATION = "confirmation"

RESERVATION_CONFIRM = "reservation_confirm"
RESERVATION_RELEASE = "reservation_release"

#: Things to do, not things that happened. A `*` never matches one.
STEPS = frozenset({RESERVATION_CONFIRM, RESERVATION_RELEASE})

#: Kinds of destinations, by the scheme of their URL.
KINDS = ("log", "null", "http", "https", "sqs", "amqp", "amqps", "kafka", "redis", "rediss", "unix")

Format = Literal["envelope", "slot", "cloudevents", "cloudevents-binary", "standard-webhooks"]


class Route(BaseModel):
    """A destination: where it is, what it wants, in which format, and how hard to try.

    `events` are event types, with `*` for any run of characters. `batch_size` is how many
    rows are fetched and settled together, `concurrency` how many calls run at once,
    `timeout_seconds` how long one may take (None: as long as the settings say).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")
    url: str = Field(min_length=1)
    events: tuple[str, ...] = ("*",)
    format: Format = "envelope"
    #: Sign webhooks: each `whsec_` and base64, as Standard Webhooks writes it. With two, while
    #: consumers change from one to the other, each delivery is signed with both.
    secret: tuple[str, ...] = Field(default=(), repr=False)
    batch_size: int = Field(default=1_000, ge=1, le=10_000)
    concurrency: int = Field(default=8, ge=1, le=64)
    timeout_seconds: float | None = Field(default=None, gt=0, le=60)
    max_attempts: int = Field(default=12, ge=1, le=1_000)
    first_retry_seconds: float = Field(default=1, gt=0, le=3_600)
    longest_retry_seconds: float = Field(default=600, gt=0, le=86_400)

    @field_validator("url")
    @classmethod
    def _leads_somewhere(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in KINDS:
            raise ValueError(f"{parts.scheme!r} is no kind of destination; the kinds are {', '.join(KINDS)}")
        if parts.scheme in {"http", "https"}:
            _ = parts.port  # what can't be read raises ValueError
            if not parts.hostname:
                raise ValueError("it must name a host")
        return url

    @field_validator("secret", mode="before")
    @classmethod
    def _one_or_more(cls, secret: object) -> object:
        return (secret,) if isinstance(secret, str) else secret

    @property
    def retries(self) -> Retries:
        return Retries(
            max_attempts=self.max_attempts,
            first=timedelta(seconds=self.first_retry_seconds),
            longest=timedelta(seconds=self.longest_retry_seconds),
        )

    def wants(self, event_type: str) -> bool:
        return any(
            want == event_type or (event_type not in STEPS and fnmatchcase(event_type, want)) for want in self.events
        )


@dataclass(frozen=True)
class Routes:
    """All destinations. It remembers what it has worked out: there are few event types."""

    destinations: Sequence[Route]
    _wanting: dict[str, Sequence[str]] = field(default_factory=dict, compare=False, repr=False)

    def wanting(self, event_type: str) -> Sequence[str]:
        """Return the names of the destinations that want events of this type."""
        if event_type not in self._wanting:
            self._wanting[event_type] = [route.name for route in self.destinations if route.wants(event_type)]
        return self._wanting[event_type]
