"""The faults of the partners, which can be changed over HTTP while they run."""

import asyncio
from random import Random
from typing import Annotated

import msgspec
from litestar.exceptions import HTTPException

#: Seconds in the header `Retry-After`. It is short, so that the recovery is seen soon.
RETRY_AFTER = "1"

#: Longer than any client waits. A larger number is a typing error.
MAX_LATENCY_SECONDS = 300


Seconds = Annotated[float, msgspec.Meta(ge=0, le=MAX_LATENCY_SECONDS)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class ServiceKnobs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one service behaves. A knob that is left out has its default.

    `error_rate` is the share of requests that are answered with 500, and `refuse_skus` are what the service says no to.
    In an `outage` it answers every request with 503. `late_rate` is the share of requests on which it acts, and answers
    only after `late_seconds`, when nobody waits for it any more.
    """

    latency_seconds: Seconds = 0.0
    error_rate: Share = 0.0
    refuse_skus: tuple[str, ...] = ()
    outage: bool = False
    late_rate: Share = 0.0
    late_seconds: Seconds = 30.0


class Knobs(ServiceKnobs, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the partners behave: the confirmation service and the webhook receiver, and each of the other services."""

    inventory: ServiceKnobs = ServiceKnobs()
    pricing: ServiceKnobs = ServiceKnobs()
    payment: ServiceKnobs = ServiceKnobs()


class Faults:
    """The knobs as they are set now, and the random numbers that decide which requests fail."""

    def __init__(self) -> None:
        self.knobs = Knobs()
        # The seed is fixed, so that the same requests fail in each run.
        self._random = Random(1)

    def of(self, service: str | None) -> ServiceKnobs:
        """Return the knobs of a service, or those of the confirmation service and the webhook receiver."""
        knobs: ServiceKnobs = getattr(self.knobs, service) if service else self.knobs
        return knobs

    async def interfere(self, service: str | None = None) -> None:
        """Delay the request, or raise an HTTPException. Call this before a partner sees the request."""
        knobs = self.of(service)
        if knobs.outage:
            raise HTTPException("This partner is down.", status_code=503, headers={"Retry-After": RETRY_AFTER})
        # This is decided before the delay, so that only the order of arrival says which requests fail.
        fails = self._happens(knobs.error_rate)
        await asyncio.sleep(knobs.latency_seconds)
        if fails:
            raise HTTPException(status_code=500)

    async def delay_answer(self, service: str | None = None) -> None:
        """Hold an answer back. Call this after a partner has acted."""
        knobs = self.of(service)
        if self._happens(knobs.late_rate):
            await asyncio.sleep(knobs.late_seconds)

    def _happens(self, rate: float) -> bool:
        return rate > 0 and self._random.random() < rate
