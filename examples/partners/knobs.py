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


class Knobs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the partners behave. A knob that is left out has its default.

    `error_rate` is the share of requests that are answered with 500. `refuse_skus` are what the
    confirmation service says no to. In an `outage`, both partners answer every request with 503.
    """

    latency_seconds: Annotated[float, msgspec.Meta(ge=0, le=MAX_LATENCY_SECONDS)] = 0.0
    error_rate: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    refuse_skus: tuple[str, ...] = ()
    outage: bool = False


class Faults:
    """The knobs as they are set now, and the random numbers that decide which requests fail."""

    def __init__(self) -> None:
        self.knobs = Knobs()
        # The seed is fixed, so that the same requests fail in each run.
        self._random = Random(1)

    async def interfere(self) -> None:
        """Delay the request, or raise an HTTPException. Call this before a partner sees the request."""
        if self.knobs.outage:
            raise HTTPException("This partner is down.", status_code=503, headers={"Retry-After": RETRY_AFTER})
        # This is decided before the delay, so that only the order of arrival says which requests fail.
        fails = self.knobs.error_rate > 0 and self._random.random() < self.knobs.error_rate
        await asyncio.sleep(self.knobs.latency_seconds)
        if fails:
            raise HTTPException(status_code=500)
