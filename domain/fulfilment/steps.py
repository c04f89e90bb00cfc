"""The steps: destinations whose answers change reservations, and the routes with them."""

from domain import feed
from domain.events.validation import event_types
from domain.outbox import Route, Routes, routes_file
from domain.reservations.events import RESERVATION_CONFIRM, RESERVATION_RELEASE
from domain.runtime.errors import ConfigurationError
from domain.runtime.settings import Settings

#: The step that CONFIRMATION_URL leads to.
CONFIRMATION = "confirmation"

#: Events that ask for something to be done.
STEP_TYPES = frozenset({RESERVATION_CONFIRM, RESERVATION_RELEASE})

#: The sinks without a routes file.
DEFAULT = (Route(name="log", url="log:"), feed.FEED)

#: Rows of a step that are fetched together: few enough that a batch is answered well within its lease.
BATCH_SIZE = 100


def load_routes(settings: Settings) -> Routes:
    """Return the sinks of the routes file, or DEFAULT without one, and the steps. Raises ConfigurationError."""
    sinks = routes_file.load(settings.routes_file) if settings.routes_file else DEFAULT
    steps = _steps(settings)
    taken = {step.name for step in steps} & {sink.name for sink in sinks}
    if taken:
        raise ConfigurationError(
            f"HOLDFAST_ROUTES: {min(taken)!r} is the name of the step that CONFIRMATION_URL leads to."
            " Give the destination another name."
        )
    routes = Routes(sinks, steps, STEP_TYPES)
    _require_known_events(routes)
    feed.require_one(routes)
    return routes


def _require_known_events(routes: Routes) -> None:
    """Raise ConfigurationError if a pattern matches no event type: the destination would wait for events in vain."""
    known = event_types()
    for destination, pattern in [(sink.name, pattern) for sink in routes.sinks for pattern in sink.events]:
        if not any(routes.matches(pattern, event_type) for event_type in known):
            raise ConfigurationError(
                f"HOLDFAST_ROUTES: destination {destination!r}: {pattern!r} in `events` matches no event type, so it"
                f" would get no event for it. The types are {', '.join(known)}. A `*` stands for any characters, and"
                f" never matches {' or '.join(sorted(routes.step_types))}."
            )


def _steps(settings: Settings) -> list[Route]:
    if not settings.confirmation_url:
        return []
    return [
        Route(
            name=CONFIRMATION,
            url=settings.confirmation_url,
            events=(RESERVATION_CONFIRM, RESERVATION_RELEASE),
            batch_size=BATCH_SIZE,
        )
    ]
