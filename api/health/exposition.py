"""The metrics as text, for all who ask for them."""

import asyncio
import time

from domain.runtime.metrics import CollectorRegistry, render

#: The metrics are rendered this often at most, as that takes 1 ms of a processor or more. Who asks sooner waits.
RENDERED_EVERY_SECONDS = 1.0


class Exposition:
    """Renders the metrics once for all who wait for them. So many who ask take no more of the processor than one."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._rests_until = 0.0
        self._is_rendering = asyncio.Lock()
        #: The next rendering, which has not begun.
        self._next: asyncio.Task[bytes] | None = None

    async def text(self) -> bytes:
        """Return the metrics, rendered after this call."""
        self._next = self._next or asyncio.create_task(self._render())
        # Whoever disconnects leaves the rendering to the others.
        return await asyncio.shield(self._next)

    async def _render(self) -> bytes:
        async with self._is_rendering:
            await asyncio.sleep(self._rests_until - time.monotonic())
            # Whoever asks from now on would miss what happened meanwhile.
            self._next = None
            self._rests_until = time.monotonic() + RENDERED_EVERY_SECONDS
            return await asyncio.to_thread(render, self._registry)
