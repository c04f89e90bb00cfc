"""The steps: destinations whose answers change reservations, and the routes with them."""

from collections.abc import Mapping

from domain import feed
from domain.bookings.saga import ASKS, UNDOES, Step
from domain.events.validation import event_types
from domain.fulfilment.slot_queues import slot_queues
from domain.outbox import Route, Routes, routes_file
from domain.reservations.events import RESERVATION_RELEASE, SLOT_EVENTS
from domain.runtime.errors import ConfigurationError
from domain.runtime.settings import Settings

#: The step that CONFIRMATION_URL leads to.
CONFIRMATION = Step.CONFIRMATION.value

#: Events that ask for something to be done.
STEP_TYPES = frozenset({*ASKS.values(), *UNDOES.values(), RESERVATION_RELEASE})

#: The sinks without a routes file.
DEFAULT = (Route(name="log", url="log:"), feed.FEED)

#: Rows of a step that are fetched together: few enough that a batch is answered well within its lease.
BATCH_SIZE = 320

#: Calls of a service that run at once.
CONCURRENCY = 16


def load_routes(settings: Settings) -> Routes:
    """Return the sinks of the routes file, or DEFAULT without one, and those that variables of the settings add.

    Raises ConfigurationError.
    """
    sinks = routes_file.load(settings.routes_file) if settings.routes_file else DEFAULT
    steps, queues = _steps(settings), slot_queues(settings)
    names = {sink.name for sink in sinks}
    for variable, route in (*steps.items(), *queues.items()):
        if route.name in names:
            raise ConfigurationError(
                f"HOLDFAST_ROUTES: {route.name!r} is the name of the destination that {variable} leads to. Give the one"
                " of the file another name."
            )
    routes = Routes([*sinks, *queues.values()], [*steps.values()], STEP_TYPES, (SLOT_EVENTS,))
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


def _steps(settings: Settings) -> Mapping[str, Route]:
    """Return the steps, by the variable that leads to each, such as PAYMENT_URL. Without one, a step is skipped."""
    urls = {
        Step.INVENTORY: settings.inventory_url,
        Step.PRICING: settings.pricing_url,
        Step.PAYMENT: settings.payment_url,
        Step.CONFIRMATION: settings.confirmation_url,
    }
    return {
        f"{step.upper()}_URL": Route(
            name=step.value, url=url, events=events_of(step), batch_size=BATCH_SIZE, concurrency=CONCURRENCY
        )
        for step, url in urls.items()
        if url
    }


def events_of(step: Step) -> tuple[str, ...]:
    """Return the types of the events that ask for a step, and to undo it."""
    undo = RESERVATION_RELEASE if step is Step.CONFIRMATION else UNDOES.get(step)
    return (ASKS[step], undo) if undo else (ASKS[step],)
