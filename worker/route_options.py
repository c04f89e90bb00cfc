"""What every sink reads from its route in the same way, and the errors that say what is wrong with a route."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from urllib.parse import parse_qsl, urlsplit

from domain.outbox import Route
from domain.runtime import urls
from domain.runtime.errors import ConfigurationError
from domain.runtime.settings import Settings

#: The names of options whose values are secret, or hold a secret.
HOLDS_PASSWORD = re.compile(r"password|secret|\.pem$|oauthbearer\.config", re.IGNORECASE)


def timeout_of(route: Route, settings: Settings) -> float:
    """Return how long the destination may take to answer, in seconds."""
    return route.timeout_seconds or settings.delivery_timeout_seconds


def options_of(route: Route, hint: str = "") -> Mapping[str, str]:
    """Return the options in the query of the URL, by name.

    Raises ConfigurationError, with the hint behind the reason, if an option is given twice.
    """
    pairs = _pairs(route.url)
    options = dict(pairs)
    if len(options) < len(pairs):
        raise wrong_route(route, f"an option is given twice{hint}")
    return options


def require_port(route: Route, hint: str = "") -> None:
    """Raise ConfigurationError, with the hint behind the reason, if the port of the URL can't be read."""
    try:
        urls.require_readable_port(route.url)
    except ValueError as error:
        raise wrong_route(route, f"{error}{hint}") from None


def wrong_route(route: Route, reason: str) -> ConfigurationError:
    """Return the error that names a route and says what is wrong with it. A full stop is added to the reason.

    What the URL has behind the name of an option that holds a password is not shown: if the password has an &, it ends
    there for every parser.
    """
    for hidden in _behind_a_password(route.url):
        reason = re.sub(rf"(?<!\w){re.escape(hidden)}(?!\w)", "***", reason)
    return ConfigurationError(f"HOLDFAST_ROUTES: destination {route.name!r}: {reason}.")


def _behind_a_password(url: str) -> Sequence[str]:
    """Return the texts that may be parts of a password in the options of a URL, the longest one first."""
    pairs = _pairs(url)
    first = next((number for number, (name, _) in enumerate(pairs) if HOLDS_PASSWORD.search(name)), len(pairs))
    texts = [text for pair in pairs[first:] for text in pair]
    return sorted(filter(None, texts[1:]), key=len, reverse=True)


def _pairs(url: str) -> Sequence[tuple[str, str]]:
    """Return the names and values of the options of a URL, in order. A plus means a plus: passwords have them."""
    return parse_qsl(urlsplit(url).query.replace("+", "%2B"), keep_blank_values=True)


@contextmanager
def extra_for(route: Route, what: str, extra: str) -> Iterator[None]:
    """Run an import. Raises ConfigurationError, which says how to install the extra, if a package is missing.

    `what` is the part of the route that needs the package.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise wrong_route(
            route,
            f"{what} needs the package {error.name!r}, which is not installed. Run: bin/install {extra}"
            f" (that is: pip install -e '.[{extra}]')",
        ) from error
