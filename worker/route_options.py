"""Opening a destination: what each kind of it reads from its route in the same way, or the process ends."""

from collections.abc import Mapping
from typing import NoReturn
from urllib.parse import parse_qsl, urlsplit

from domain.outbox.routes import Route
from domain.runtime.settings import Settings, refuse_to_start


def timeout_of(route: Route, settings: Settings) -> float:
    """Return how long the destination may take to answer, in seconds."""
    return route.timeout_seconds or settings.webhook_timeout_seconds


def options_of(route: Route) -> Mapping[str, str]:
    """Return what the query of its URL says, by name. A plus is a plus and not a space: passwords have them."""
    pairs = parse_qsl(urlsplit(route.url).query.replace("+", "%2B"), keep_blank_values=True)
    options = dict(pairs)
    if len(options) < len(pairs):
        refuse(route, "an option is given twice")
    return options


def refuse(route: Route, reason: str) -> NoReturn:
    """End the process and say what is wrong with a route. A full stop is added to the reason."""
    refuse_to_start(f"HOLDFAST_ROUTES: destination {route.name!r}: {reason}.")


def refuse_without(route: Route, package: str | None, what: str, extra: str) -> NoReturn:
    """End the process, as what the route asks for needs a package, and say how to install it."""
    refuse(
        route,
        f"{what} needs the package {package!r}, and it is not installed. Run: bin/install {extra}"
        f" (that is: pip install -e '.[{extra}]')",
    )
