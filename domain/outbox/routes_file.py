"""The file named by HOLDFAST_ROUTES, read and checked before anything starts."""

import os
import re
import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from domain.outbox.routes import CONFIRMATION, RESERVATION_CONFIRM, RESERVATION_RELEASE, Route, Routes
from domain.runtime.settings import Settings, complaint, refuse_to_start


def load(settings: Settings) -> Routes:
    """Return the routes that the settings ask for, or end the process and say what is wrong, and in which line."""
    sinks = _File.read(settings.routes_file).routes() if settings.routes_file else [Route(name="log", url="log:")]
    if settings.confirmation_url:
        steps = (RESERVATION_CONFIRM, RESERVATION_RELEASE)
        if any(sink.name == CONFIRMATION for sink in sinks):
            refuse_to_start(f"HOLDFAST_ROUTES: {CONFIRMATION!r} is the name of what CONFIRMATION_URL leads to.")
        # Few enough that one batch is answered well within its lane's time.
        sinks.append(Route(name=CONFIRMATION, url=settings.confirmation_url, events=steps, batch_size=100))
    return Routes(sinks)


@dataclass(frozen=True)
class _File:
    """A routes file: its text, for the line that a complaint names, and what is in it."""

    path: Path
    text: str
    document: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> "_File":
        try:
            text = path.read_text()
            return cls(path, text, tomllib.loads(text))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            refuse_to_start(f"HOLDFAST_ROUTES: {path} can't be read: {error}")

    def routes(self) -> list[Route]:
        strangers = self.document.keys() - {"destination"}
        if strangers:
            self._refuse(self._line(min(strangers)), f"unknown key {min(strangers)!r}; write [[destination]]")
        entries = self.document.get("destination", [])
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            self._refuse(self._line("destination"), "each destination is a table of its own: [[destination]]")
        routes = [self._route(number, entry) for number, entry in enumerate(entries)]
        self._insist_on_names(routes)
        return routes

    def _route(self, number: int, entry: Mapping[str, object]) -> Route:
        try:
            return Route.model_validate({key: _expanded(key, value) for key, value in entry.items()})
        except ValidationError as error:
            fault = error.errors()[0]
            place = ".".join(map(str, fault["loc"]))
            # What is missing is told of with all that is there, and an unknown key may be a secret's.
            is_tellable = fault["type"] not in {"missing", "extra_forbidden"} and fault["loc"][0] != "secret"
            # A URL as it is written: what variables put into it may be a password.
            written = entry.get("url") if fault["loc"][0] == "url" else fault["input"]
            told = f" (it says {written!r})" if is_tellable else ""
            line = self._line(str(fault["loc"][0]), destination=number)
            said = complaint(fault)
            if fault["type"] == "extra_forbidden":
                said = f"a destination has no such key; it has {', '.join(Route.model_fields)}"
            self._refuse(line, f"{place}: {said}{told}")

    def _insist_on_names(self, routes: list[Route]) -> None:
        counted = Counter(route.name for route in routes)
        for number, route in reversed(list(enumerate(routes))):
            if counted[route.name] > 1:
                line = self._line("name", destination=number)
                self._refuse(line, f"two destinations are called {route.name!r}; each needs a name of its own")

    def _refuse(self, line: int, reason: str) -> NoReturn:
        refuse_to_start(f"HOLDFAST_ROUTES: {self.path}, line {line}: {reason}.")

    def _line(self, key: str, *, destination: int | None = None) -> int:
        """Return the line that a key is in; where it is missing, the line that its destination begins with."""
        lines = list(enumerate(self.text.splitlines(), start=1))
        begins = [number for number, line in lines if re.match(r"\s*\[\[\s*destination\s*\]\]", line)]
        first = begins[destination] if destination is not None and destination < len(begins) else 1
        until = next((number for number in begins if number > first), len(lines) + 1)
        inside = lines[first - 1 :] if destination is None else lines[first - 1 : until - 1]
        written = re.compile(rf"[\s\[]*[\"']?{re.escape(key)}[\"']?\s*[=\].]")
        return next((number for number, line in inside if written.match(line)), first)


def _expanded(key: str, value: object) -> object:
    """Put environment variables into `url` and `secret`, so that secrets stay out of the file."""
    if key not in {"url", "secret"}:
        return value
    if isinstance(value, list):
        return [_expanded(key, one) for one in value]
    return _expand(value) if isinstance(value, str) else value


def _expand(text: str) -> str:
    expanded = os.path.expandvars(text)
    missing = re.search(r"\$\{?(\w+)", expanded)
    if missing:
        refuse_to_start(f"{missing[1]}: HOLDFAST_ROUTES needs this variable, and it is not set.")
    return expanded
