"""What the partners can be made to suffer, changed over HTTP while they run."""

import asyncio
from random import Random
from typing import Annotated

import msgspec
from litestar import Response

#: Seconds, as `Retry-After` writes it: short, so that a demo sees the recovery.
RETRY_AFTER = "1"

#: Longer than any client waits, and short enough to be a slip of the hand no longer.
MAX_LATENCY_SECONDS = 300


class Knobs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the partners behave. What is left out is as it was at the start.

    `error_rate` is the share of answers that are 500, `refuse_skus` what the confirmation
    service says no to, `outage` whether both partners answer 503 to everything.
    """

    latency_seconds: Annotated[float, msgspec.Meta(ge=0, le=MAX_LATENCY_SECONDS)] = 0.0
    error_rate: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    refuse_skus: tuple[str, ...] = ()
    outage: bool = False


class Troubles:
    """The knobs as they are set now, and the dice that decide which answers are errors."""

    def __init__(self, seed: int) -> None:
        self.knobs = Knobs()
        self._dice = Random(seed)

    async def strike(self) -> Response[str] | None:
        """Keep the caller waiting, or answer in a partner's stead, before the partner has seen anything."""
        if self.knobs.outage:
            return Response("This partner is down.", status_code=503, headers={"Retry-After": RETRY_AFTER})
        # Rolled before the wait, so that the order of arrival alone decides who is struck.
        failing = self._roll()
        await asyncio.sleep(self.knobs.latency_seconds)
        return Response("This partner has failed.", status_code=500) if failing else None

    def _roll(self) -> bool:
        """Leave the dice alone while there are no errors: traffic before them must not change the run."""
        return self.knobs.error_rate > 0 and self._dice.random() < self.knobs.error_rate
