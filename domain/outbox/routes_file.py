"""The routes file, named by HOLDFAST_ROUTES: read and checked before anything starts."""

import os
import re
import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from domain.outbox.routes import Route
from domain.runtime import secrets
from domain.runtime.errors import ConfigurationError
from domain.runtime.settings import complaint

#: The keys that may refer to environment variables.
EXPANDED = ("url", "secret")

#: A reference to an environment variable.
VARIABLE = re.compile(r"\$(?:\w+|\{\w+\})", re.ASCII)


def load(path: Path) -> list[Route]:
    """Return the destinations of a routes file. Raises ConfigurationError, which names the line that is wrong."""
    return _File.read(path).routes()


@dataclass(frozen=True)
class _File:
    """A routes file: its text, which complaints quote the line of, and its parsed content."""

    path: Path
    text: str
    document: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> "_File":
        try:
            text = path.read_text()
            return cls(path, text, tomllib.loads(text))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigurationError(f"HOLDFAST_ROUTES: {path} can't be read: {error}") from error

    def routes(self) -> list[Route]:
        unknown = self.document.keys() - {"destination"}
        if unknown:
            self._refuse(self._line(min(unknown)), f"unknown key {min(unknown)!r}; write [[destination]]")
        entries = self.document.get("destination", [])
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            self._refuse(self._line("destination"), "each destination is a table of its own: [[destination]]")
        routes = [self._route(number, entry) for number, entry in enumerate(entries)]
        self._require_unique_names(routes)
        return routes

    def _route(self, number: int, entry: Mapping[str, object]) -> Route:
        try:
            return Route.model_validate({key: _expanded(key, value) for key, value in entry.items()})
        except _NotSet as error:
            line = self._line(error.key, destination=number)
            self._refuse(line, f"{error.key}: {error.variable} is not set. Set it, or write %24 if a $ is meant")
        except ValidationError as error:
            fault = error.errors()[0]
            place = ".".join(map(str, fault["loc"]))
            # For a missing key the input is the whole table, and an unknown key may hold a secret, as a URL may.
            can_be_quoted = fault["type"] not in {"missing", "extra_forbidden"} and fault["loc"][0] not in EXPANDED
            quoted = f" (it says {fault['input']!r})" if can_be_quoted else ""
            line = self._line(str(fault["loc"][0]), destination=number)
            message = complaint(fault)
            if fault["type"] == "extra_forbidden":
                message = f"a destination has no such key; it has {', '.join(Route.model_fields)}"
            self._refuse(line, f"{place}: {message}{quoted}")

    def _require_unique_names(self, routes: list[Route]) -> None:
        counted = Counter(route.name for route in routes)
        for number, route in reversed(list(enumerate(routes))):
            if counted[route.name] > 1:
                line = self._line("name", destination=number)
                self._refuse(line, f"two destinations are called {route.name!r}; each needs a name of its own")

    def _refuse(self, line: int, reason: str) -> NoReturn:
        # The cause has the values.
        raise ConfigurationError(f"HOLDFAST_ROUTES: {self.path}, line {line}: {reason}.") from None

    def _line(self, key: str, *, destination: int | None = None) -> int:
        """Return the line of a key; if the key is missing, the line at which its destination begins."""
        lines = list(enumerate(self.text.splitlines(), start=1))
        begins = [number for number, line in lines if re.match(r"\s*\[\[\s*destination\s*\]\]", line)]
        first = begins[destination] if destination is not None and destination < len(begins) else 1
        until = next((number for number in begins if number > first), len(lines) + 1)
        inside = lines[first - 1 :] if destination is None else lines[first - 1 : until - 1]
        written = re.compile(rf"[\s\[]*[\"']?{re.escape(key)}[\"']?\s*[=\].]")
        return next((number for number, line in inside if written.match(line)), first)


class _NotSet(Exception):
    """Raised for a variable that is not set."""

    def __init__(self, key: str, reference: str) -> None:
        self.key = key
        #: What is not in braces may be a part of a password.
        self.variable = f"the variable {reference}" if "{" in reference else "a variable in it"


def _expanded(key: str, value: object) -> object:
    """Put environment variables into `url` and `secret`, so that the file need not contain secrets."""
    if key not in EXPANDED:
        return value
    if isinstance(value, list):
        return [_expanded(key, one) for one in value]
    return VARIABLE.sub(lambda found: _value_of(key, found[0]), value) if isinstance(value, str) else value


def _value_of(key: str, reference: str) -> str:
    name = reference.strip("${}")
    value = secrets.read(name) or os.environ.get(name)
    if value is None:
        raise _NotSet(key, reference)
    return value
