"""What every sink reads from its route in the same way, and the errors that say what is wrong with a route."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import parse_qsl, urlsplit

from domain.outbox import Route
from domain.runtime.errors import ConfigurationError
from domain.runtime.settings import Settings, require_readable_port


def timeout_of(route: Route, settings: Settings) -> float:
    """Return how long the destination may take to answer, in seconds."""
    return route.timeout_seconds or settings.delivery_timeout_seconds


def options_of(route: Route, hint: str = "") -> Mapping[str, str]:
    """Return the options in the query of the URL, by name. A plus means a plus and not a space: passwords have them.

    Raises ConfigurationError, with the hint behind the reason, if an option is given twice.
    """
    pairs = parse_qsl(urlsplit(route.url).query.replace("+", "%2B"), keep_blank_values=True)
    options = dict(pairs)
    if len(options) < len(pairs):
        raise wrong_route(route, f"an option is given twice{hint}")
    return options


def require_port(route: Route, hint: str = "") -> None:
    """Raise ConfigurationError, with the hint behind the reason, if the port of the URL can't be read."""
    try:
        require_readable_port(route.url)
    except ValueError as error:
        raise wrong_route(route, f"{error}{hint}") from None


def quoted(text: str) -> str:
    """Return a part of a URL, from behind the host, as a message may quote it.

    If it has an @, it is not shown: it may be the end of a password that should have been percent-encoded.
    """
    return "'***'" if "@" in text else repr(text)


def wrong_route(route: Route, reason: str) -> ConfigurationError:
    """Return the error that names a route and says what is wrong with it. A full stop is added to the reason."""
    return ConfigurationError(f"HOLDFAST_ROUTES: destination {route.name!r}: {reason}.")


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
