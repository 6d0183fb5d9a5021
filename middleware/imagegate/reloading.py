"""A configuration that another one has replaced, while requests and tasks that began under it go on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from imagegate.wiring import LoopServices, Services


class Running:
    """Counts the exchanges of one configuration."""

    __slots__ = ("_ended", "count")

    def __init__(self) -> None:
        self.count = 0
        """Raised and lowered by the gateway."""
        self._ended: asyncio.Event | None = None

    def wake(self) -> None:
        """End the waiting of `join` if no exchange is left."""
        if not self.count and self._ended is not None:
            self._ended.set()

    async def join(self) -> None:
        """Wait until there is none, where no new ones begin; `wake` must be called whenever one ends."""
        if self.count:
            self._ended = asyncio.Event()
            await self._ended.wait()


class Retired:
    """Closes what only a replaced configuration needs, when nothing that began under it runs any more.

    Args:
        services: its connections to upstreams and its table of keys are closed; stores are its successor's now.
        own: its background work.
        running: its exchanges.
        on_end: is called when that is done.
    """

    def __init__(
        self, services: Services, own: LoopServices, running: Running, on_end: Callable[[Retired], None]
    ) -> None:
        self._services = services
        self._running = running
        self._on_end = on_end
        self.own = own
        self._closing = asyncio.create_task(self._close_later())

    async def _close_later(self) -> None:
        await self.own.tasks.take_over.aclose()  # the successor's looks after its tasks too
        if self.own.spending is not None:
            await self.own.spending.stop()
        await self._running.join()  # what they start in the background, they start before they end
        await self.own.background.join()
        await self._close()
        self._on_end(self)

    async def _close(self) -> None:
        await self._services.clients.close_upstreams()
        if self._services.access is not None:
            self._services.access.close()

    async def finish(self, grace: float) -> int:
        """Wait up to `grace` seconds for background work, then cancel it and close; return how much was cancelled."""
        cancelled = await self.own.background.finish(grace)
        self._closing.cancel()
        await asyncio.gather(self._closing, return_exceptions=True)
        await self._close()
        return cancelled
