"""Which destination wants which events: the file named by HOLDFAST_ROUTES."""

import os
import re
import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from domain.settings import Settings, refuse_to_start

#: The destination behind CONFIRMATION_URL.
CONFIRMATION = "confirmation"

RESERVATION_CONFIRM = "reservation_confirm"
RESERVATION_RELEASE = "reservation_release"

#: Things to do, not things that happened. A `*` never matches one.
STEPS = frozenset({RESERVATION_CONFIRM, RESERVATION_RELEASE})


class Route(BaseModel):
    """A destination: where it is, what it wants, and how hard to try.

    `events` are event types, with `*` for any run of characters. `batch_size` is how many
    rows are fetched and settled together, `concurrency` how many calls run at once.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")
    url: str = Field(min_length=1)
    events: tuple[str, ...] = ("*",)
    #: Signs webhooks: `whsec_` and base64, as Standard Webhooks writes it.
    secret: str | None = Field(default=None, repr=False)
    batch_size: int = Field(default=1_000, ge=1, le=10_000)
    concurrency: int = Field(default=8, ge=1, le=64)
    max_attempts: int = Field(default=12, ge=1, le=1_000)

    @field_validator("url")
    @classmethod
    def _leads_somewhere(cls, url: str) -> str:
        parts = urlsplit(url)
        _ = parts.port  # what can't be read raises ValueError
        if parts.scheme in {"http", "https"} and not parts.hostname:
            raise ValueError("it must name a host")
        return url

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


def load(settings: Settings) -> Routes:
    """Return the routes that the settings ask for, or end the process and say what is wrong."""
    sinks = _read(settings.routes_file) if settings.routes_file else [Route(name="log", url="log:")]
    if settings.confirmation_url:
        steps = (RESERVATION_CONFIRM, RESERVATION_RELEASE)
        # Few enough that one batch is answered well within its lane's time.
        sinks.append(Route(name=CONFIRMATION, url=settings.confirmation_url, events=steps, batch_size=100))
    twice = [name for name, count in Counter(sink.name for sink in sinks).items() if count > 1]
    if twice:
        refuse_to_start(f"HOLDFAST_ROUTES: two destinations are called {twice[0]!r}; each needs a name of its own.")
    return Routes(sinks)


def _read(path: Path) -> list[Route]:
    try:
        document = tomllib.loads(path.read_text())
        strangers = document.keys() - {"destination"}
        if strangers:
            refuse_to_start(f"HOLDFAST_ROUTES: {path} has an unknown key {min(strangers)!r}; write [[destination]].")
        entries = document.get("destination", [])
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            refuse_to_start(f"HOLDFAST_ROUTES: in {path}, each destination is a table of its own: [[destination]].")
        return [Route.model_validate(_expanded(entry)) for entry in entries]
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        refuse_to_start(f"HOLDFAST_ROUTES: {path} can't be read: {error}")
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"]))
        # What is missing is told of with all that is there, and an unknown key may be a secret's.
        is_tellable = fault["type"] not in {"missing", "extra_forbidden"} and fault["loc"][0] != "secret"
        told = f" (it says {fault['input']!r})" if is_tellable else ""
        refuse_to_start(f"HOLDFAST_ROUTES: in {path}, {place}: {fault['msg']}{told}")


def _expanded(entry: dict[str, object]) -> dict[str, object]:
    """Put environment variables into `url` and `secret`, so that secrets stay out of the file."""
    return {
        key: _expand(value) if key in {"url", "secret"} and isinstance(value, str) else value
        for key, value in entry.items()
    }


def _expand(text: str) -> str:
    expanded = os.path.expandvars(text)
    missing = re.search(r"\$\{?(\w+)", expanded)
    if missing:
        refuse_to_start(f"{missing[1]}: HOLDFAST_ROUTES needs this variable, and it is not set.")
    return expanded
