"""Routes: which destination wants which events."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from fnmatch import fnmatchcase

from pydantic import BaseModel, ConfigDict, Field, field_validator

from domain.outbox.delivery.row_updates import RetryPolicy
from domain.runtime import urls

#: How a URL begins, by RFC 3986. Which schemes there are is for the workers to say.
SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:")


class Route(BaseModel):
    """A destination: where it is, which events it wants, in which format, and how often a delivery is tried.

    `events` are event types, with `*` for any characters. `batch_size` is how many rows are fetched and settled
    together, `concurrency` how many calls run at once, `timeout_seconds` how long one may take (None: as long as the
    settings say). Only the shape of the URL is checked here: the worker knows which schemes and formats there are.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")
    url: str = Field(min_length=1)
    events: tuple[str, ...] = ("*",)
    format: str = Field(default="envelope", pattern=r"^[a-z][a-z0-9-]*$")
    #: The keys that sign webhooks: each `whsec_` and base64, as Standard Webhooks writes it. With two of them each
    #: delivery has two signatures, so that consumers can change from one key to the other.
    secret: tuple[str, ...] = Field(default=(), repr=False)
    batch_size: int = Field(default=1_000, ge=1, le=10_000)
    concurrency: int = Field(default=8, ge=1, le=64)
    timeout_seconds: float | None = Field(default=None, gt=0, le=60)
    max_attempts: int = Field(default=12, ge=1, le=1_000)
    first_retry_seconds: float = Field(default=1, gt=0, le=3_600)
    longest_retry_seconds: float = Field(default=600, gt=0, le=86_400)

    @field_validator("url")
    @classmethod
    def _has_the_shape_of_a_url(cls, url: str) -> str:
        if not SCHEME.match(url):
            raise ValueError("it must begin with a scheme, such as https:// or log:")
        parts = urls.split(url)
        if parts.scheme in {"http", "https"}:
            urls.require_readable_port(url)
            if not parts.hostname:
                raise ValueError("it must name a host")
        return url

    @field_validator("secret", mode="before")
    @classmethod
    def _one_or_more(cls, secret: object) -> object:
        return (secret,) if isinstance(secret, str) else secret

    @property
    def retry_policy(self) -> RetryPolicy:
        return RetryPolicy(
            max_attempts=self.max_attempts,
            first=timedelta(seconds=self.first_retry_seconds),
            longest=timedelta(seconds=self.longest_retry_seconds),
        )


@dataclass(frozen=True)
class Routes:
    """All destinations: sinks, which take events, and steps, whose answers change reservations.

    Events of `step_types` ask for something to be done. Only a route that lists their type by name gets them: a `*`
    never matches one. Events whose type begins with one of `apart` say again, in other terms, what others have said:
    only a pattern that begins so matches them.
    """

    sinks: Sequence[Route]
    steps: Sequence[Route] = ()
    step_types: frozenset[str] = frozenset()
    apart: tuple[str, ...] = ()
    #: The names of the destinations that want an event type: there are few types, so each is worked out once.
    _wanting: dict[str, Sequence[str]] = field(default_factory=dict, compare=False, repr=False)

    @property
    def destinations(self) -> Sequence[Route]:
        return [*self.sinks, *self.steps]

    @property
    def names(self) -> Sequence[str]:
        return [route.name for route in self.destinations]

    def wanting(self, event_type: str) -> Sequence[str]:
        """Return the names of the destinations that want events of this type."""
        if event_type not in self._wanting:
            wanting = [route.name for route in self.destinations if self._wants(route, event_type)]
            self._wanting[event_type] = wanting
        return self._wanting[event_type]

    def matches(self, pattern: str, event_type: str) -> bool:
        """Return whether a destination with this pattern in `events` wants events of this type."""
        if event_type in self.step_types:
            return event_type == pattern
        if any(event_type.startswith(one) and not pattern.startswith(one) for one in self.apart):
            return False
        return fnmatchcase(event_type, pattern)

    def _wants(self, route: Route, event_type: str) -> bool:
        return any(self.matches(pattern, event_type) for pattern in route.events)
