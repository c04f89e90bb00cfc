"""The steps: destinations whose answers change reservations, and the routes with them."""

from domain.outbox import Route, Routes, routes_file
from domain.reservations.events import RESERVATION_CONFIRM, RESERVATION_RELEASE
from domain.runtime.errors import ConfigurationError
from domain.runtime.settings import Settings

#: The step that CONFIRMATION_URL leads to.
CONFIRMATION = "confirmation"

#: Events that ask for something to be done.
STEP_TYPES = frozenset({RESERVATION_CONFIRM, RESERVATION_RELEASE})

#: Rows of a step that are fetched together: few enough that a batch is answered well within its lease.
BATCH_SIZE = 100


def load_routes(settings: Settings) -> Routes:
    """Return the sinks of the routes file, or `log:` without one, and the steps. Raises ConfigurationError."""
    sinks = routes_file.load(settings.routes_file) if settings.routes_file else [Route(name="log", url="log:")]
    steps = _steps(settings)
    taken = {step.name for step in steps} & {sink.name for sink in sinks}
    if taken:
        raise ConfigurationError(
            f"HOLDFAST_ROUTES: {min(taken)!r} is the name of the step that CONFIRMATION_URL leads to."
            " Give the destination another name."
        )
    return Routes(sinks, steps, STEP_TYPES)


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
