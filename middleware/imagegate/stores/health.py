"""Watches whether a store accepts images, so that a request can be refused before anything is paid."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Literal

from structlog import get_logger

from imagegate.stores.errors import StoreFull, StoreRefused, StoreTrouble

StoreState = Literal["usable", "full", "unavailable"]
_FAILURES: Final = 3
"""In a row, with which a bucket that does not answer, or answers 5xx, is left alone."""
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 30.0
"""Seconds between two probes."""
_LARGEST_PROBE: Final = 4 * 1024 * 1024


class StoreHealth:
    """What is known of a store, from the last time that it was needed."""

    def __init__(self) -> None:
        self.state: StoreState = "usable"
        self.reason = ""
        """For the log and for operators."""
        self._notify: Callable[[StoreState], None] | None = None

    def listen(self, notify: Callable[[StoreState], None]) -> None:
        """Call `notify` with each new state."""
        self._notify = notify

    def become(self, state: StoreState, reason: str = "") -> None:
        changed = state != self.state
        self.state, self.reason = state, reason
        if not changed:
            return
        if state == "usable":
            get_logger("imagegate").info("store is usable again")
        else:
            get_logger("imagegate").warning("store takes no images", state=state, reason=reason)
        if self._notify is not None:
            self._notify(state)

    def refused(self, error: OSError) -> None:
        """Note why the store takes nothing."""
        self.become("full" if isinstance(error, StoreFull) else "unavailable", error.strerror or str(error))

    def start(self) -> None:
        """Begin to find out, where it is not known yet. Call on an event loop."""

    async def look(self) -> None:
        """Find out, where it is not known yet. Never fails."""

    async def aclose(self) -> None: ...


class BucketHealth(StoreHealth):
    """Lets pictures through to a bucket that takes them.

    The first picture waits for a probe, and so does the next one after each that the bucket did not take. A bucket that
    refuses the credentials, is not there or is full is left alone from then on; one that does not answer, or fails,
    when it has not taken the probe either, or several pictures in a row. Probes then find out when it can be used.

    Args:
        probe: writes and removes an object of so many bytes; raises `OSError`.
        failures: in a row, with which a bucket is left alone.
        first_pause: seconds to the first probe after that; each further pause is twice as long.
    """

    def __init__(
        self,
        probe: Callable[[int], Awaitable[None]],
        *,
        failures: int = _FAILURES,
        first_pause: float = _FIRST_PAUSE,
    ) -> None:
        super().__init__()
        self._probe = probe
        self._failures = failures
        self._first_pause = first_pause
        self._is_known = False
        self._in_a_row = 0
        self._probe_size = 1
        self._first: asyncio.Task[None] | None = None
        self._probing: asyncio.Task[None] | None = None

    async def check(self) -> None:
        """Raise `OSError` where the bucket takes nothing."""
        await self.look()
        if self.state != "usable":
            self._keep_probing()
            raise (StoreFull if self.state == "full" else OSError)(self.reason)

    def start(self) -> None:
        if not self._is_known and (self._first is None or self._first.done() or _is_elsewhere(self._first)):
            self._first = asyncio.create_task(self._probe_once())

    async def look(self) -> None:
        self.start()
        if not self._is_known and self._first is not None:
            await asyncio.wait([self._first])  # which goes on where one who waits is cancelled

    def worked(self) -> None:
        """Note that the bucket has taken a picture."""
        self._in_a_row = 0

    def failed(self, error: Exception, size: int) -> None:
        """Note that the bucket did not take a picture, of which `size` bytes were sent."""
        self._in_a_row += isinstance(error, StoreTrouble)
        if isinstance(error, StoreFull):
            self._probe_size = max(1, min(size, _LARGEST_PROBE))
        elif not isinstance(error, StoreRefused) and self._in_a_row < self._failures:
            self._is_known = self._is_known and not isinstance(error, StoreTrouble)
            return
        if isinstance(error, OSError):
            self._is_known = True
            self.refused(error)
            self._keep_probing()

    async def _probe_once(self) -> None:
        try:
            await self._probe(self._probe_size)
        except OSError as error:
            self.refused(error)
            self._keep_probing()
        else:
            if self.state != "usable":
                self._in_a_row, self._probe_size = 0, 1
            self.become("usable")
        self._is_known = True

    def _keep_probing(self) -> None:
        if self._probing is None or self._probing.done() or _is_elsewhere(self._probing):
            self._probing = asyncio.create_task(self._probe_until_usable())

    async def _probe_until_usable(self) -> None:
        pause = self._first_pause
        while self.state != "usable":
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            await self._probe_once()

    async def aclose(self) -> None:
        for task in (self._first, self._probing):
            if task is not None and not _is_elsewhere(task):
                task.cancel()
                await asyncio.wait([task])
        self._first = self._probing = None


def _is_elsewhere(task: asyncio.Task[None]) -> bool:
    """Return whether a task belongs to another event loop, which may have ended."""
    return task.get_loop() is not asyncio.get_running_loop()
