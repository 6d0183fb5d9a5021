"""Applies an upstream's circuit breaker, concurrency limit and rate limit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from math import ceil
from typing import Any, Final

from imagegate.asgi.helpers import TooLate, within
from imagegate.errors import ImagegateError, UpstreamError, UpstreamUnavailable
from imagegate.protocol.messages import LiveFiles
from imagegate.protocol.provider_errors import uncertain
from imagegate.routing.circuit_breaker import Breaker
from imagegate.routing.rate_limit import RateLimit
from imagegate.routing.shared_limits import NotInTime, SharedLimits, SharedUpstream
from imagegate.telemetry.hooks import BreakerState
from imagegate.telemetry.progress import Progress

Work = Callable[[], Coroutine[Any, Any, None]]

_SOON: Final = 1.0
"""Seconds: `Retry-After` where the time of the next free permit is unknown."""
_FREE: Final = nullcontext(None)
"""Replaces a limit that is not configured."""


class UpstreamLimiter:
    """Applies an upstream's circuit breaker, concurrency limit and rate limit.

    Args:
        breaker: checked before a request is queued.
        max_in_flight: maximum number of concurrent requests; None: unlimited.
        requests_per_minute: None: unlimited.
        changed: called with each new state of the breaker.
        clock: monotonic clock, in seconds.
    """

    def __init__(
        self,
        breaker: Breaker,
        *,
        max_in_flight: int | None = None,
        requests_per_minute: int | None = None,
        changed: Callable[[BreakerState], None] = lambda state: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._breaker = breaker
        self._max_in_flight = max_in_flight
        self.enter_loop()
        self._rate = RateLimit(requests_per_minute) if requests_per_minute is not None else None
        self._changed = changed
        self._clock = clock
        self._requests_per_minute = requests_per_minute
        self._shared: SharedUpstream | None = None

    @property
    def state(self) -> BreakerState:
        """State of the breaker."""
        return self._breaker.state

    def enter_loop(self) -> None:
        """Begin to serve another event loop: requests of the last one, which has ended, hold no permits any more."""
        self._permits = None if self._max_in_flight is None else asyncio.Semaphore(self._max_in_flight)

    @property
    def is_shared(self) -> bool:
        """Whether other processes count too."""
        return self._shared is not None

    def share(self, limits: SharedLimits | None, name: str) -> None:
        """Share limits and breaker with other processes from now on; None: with none."""
        self._shared = None
        if limits is not None:
            self._shared = limits.add(
                name,
                self._breaker,
                max_in_flight=self._max_in_flight,
                requests_per_minute=self._requests_per_minute,
            )

    def run(
        self,
        work: Work,
        progress: Progress,
        *,
        queue_timeout: float,
        until: float | None,
        live: LiveFiles | None = None,
    ) -> Coroutine[Any, Any, None]:
        """Run one request within the limits.

        Args:
            work: sends the request.
            progress: accumulates the seconds spent in the queue.
            queue_timeout: maximum seconds to wait for a permit and a rate-limit slot.
            until: deadline on the event loop's clock; None: no deadline.
            live: files that the client is still sending. While they are incomplete, a closed connection does not count
                against the breaker: the provider may have timed out on a slow client.

        Raises:
            UpstreamUnavailable: the breaker is open, or no permit or slot became free in time; nothing was sent.
            UpstreamUncertain: the deadline passed after the request was sent.
        """
        if self._breaker.state != "closed" and self._breaker.is_shut(self._clock()):
            raise self._shut()
        if self._permits is None and self._rate is None:
            return self._permitted(work, progress, until, live)
        return self._queued(work, progress, queue_timeout, until, live)

    async def _queued(
        self, work: Work, progress: Progress, queue_timeout: float, until: float | None, live: LiveFiles | None
    ) -> None:
        queued_at, has_passed = self._clock(), False
        try:
            async with self._turn(queued_at, queue_timeout):
                progress.queue_seconds += self._clock() - queued_at
                has_passed = True
                await self._permitted(work, progress, until, live)
        finally:
            if not has_passed:
                progress.queue_seconds += self._clock() - queued_at

    def _turn(self, queued_at: float, queue_timeout: float) -> AbstractAsyncContextManager[None]:
        if self._shared is not None:
            return self._shared_turn(self._shared, queue_timeout)
        return self._own_turn(queued_at, queue_timeout)

    @asynccontextmanager
    async def _own_turn(self, queued_at: float, queue_timeout: float) -> AsyncGenerator[None]:
        async with self._permit(queue_timeout), self._slot(queued_at + queue_timeout):
            yield

    @asynccontextmanager
    async def _shared_turn(self, shared: SharedUpstream, queue_timeout: float) -> AsyncGenerator[None]:
        turn = await shared.take(queue_timeout)
        if isinstance(turn, NotInTime):
            raise _busy(turn.limit, turn.seconds)
        was_used = False
        try:
            if turn.delay > 0:
                await asyncio.sleep(turn.delay)
            was_used = True
            yield
        except ImagegateError as error:
            was_used = was_used and not error.nothing_sent
            raise
        finally:
            await shared.leave(turn, was_used=was_used)

    def _permit(self, queue_timeout: float) -> AbstractAsyncContextManager[None]:
        return _FREE if self._permits is None else _acquire(self._permits, queue_timeout)

    def _slot(self, latest: float) -> AbstractAsyncContextManager[None]:
        return _FREE if self._rate is None else self._rate_slot(self._rate, latest)

    @asynccontextmanager
    async def _rate_slot(self, rate: RateLimit, latest: float) -> AsyncGenerator[None]:
        now = self._clock()
        slot = rate.take(now, max_wait=max(latest - now, 0.0))
        if slot is None:
            raise _busy("rate limit", rate.next_slot(now) - now)
        was_used = False
        try:
            await asyncio.sleep(slot - now)
            was_used = True
            yield
        except BaseException as error:
            if not was_used or (isinstance(error, ImagegateError) and error.nothing_sent):
                rate.give_back(slot)
            raise

    async def _permitted(self, work: Work, progress: Progress, until: float | None, live: LiveFiles | None) -> None:
        """Run `work` with a permit of the breaker, and report the outcome to it."""
        breaker, sent = self._breaker, progress.attempts
        permit = breaker.permit if breaker.state == "closed" else await self._probe()
        worked: bool | None = None
        is_clients_fault = False
        try:
            loop = asyncio.get_running_loop()
            left = None if until is None else until - loop.time()
            if left is not None and left <= 0:
                raise _late(progress, was_sent=False)
            try:
                await (work() if left is None else within(left, work(), loop))
            except TooLate:
                is_clients_fault = progress.is_client_awaited  # who does not read what the provider has made
                raise _late(progress, was_sent=progress.attempts > sent) from None
            worked = True
        except UpstreamError as error:
            if (
                not is_clients_fault
                and (live is None or live.is_whole)
                and (error.counts_against_breaker or not error.nothing_sent)
            ):
                worked = not error.counts_against_breaker
            raise
        finally:
            if worked is False or breaker.in_a_row or breaker.state != "closed":
                self._leave(permit, worked=worked)

    async def _probe(self) -> int:
        """Return a permit of a breaker that is not closed. Raises `UpstreamUnavailable`."""
        if self._breaker.state == "open" and self._shared is not None and not await self._may_probe(self._shared):
            raise self._shut()
        state = self._breaker.state
        permit = self._breaker.enter(self._clock())
        if permit is None:
            raise self._shut()
        if self._breaker.state != state:
            self._note_change()
        return permit

    def _leave(self, permit: int, *, worked: bool | None) -> None:
        state = self._breaker.state
        self._breaker.leave(permit, worked=worked, now=self._clock())
        if self._breaker.state != state:
            self._note_change()

    async def _may_probe(self, shared: SharedUpstream) -> bool:
        """Return whether the pause is over, and no other process asks the upstream."""
        return not self._breaker.is_shut(self._clock()) and await shared.may_probe(self._breaker.pause)

    def _note_change(self) -> None:
        """Tell of the breaker's new state."""
        self._changed(self._breaker.state)
        if self._shared is not None:
            self._shared.note(self._breaker.state)

    def _shut(self) -> UpstreamUnavailable:
        return UpstreamUnavailable(
            "The provider's circuit breaker is open after repeated failures; nothing was sent.",
            retry_after=max(1, ceil(self._breaker.seconds_left(self._clock()))),
        )


@asynccontextmanager
async def _acquire(permits: asyncio.Semaphore, queue_timeout: float) -> AsyncGenerator[None]:
    if permits.locked() and queue_timeout <= 0:
        raise _busy("concurrency limit", _SOON)
    try:
        async with asyncio.timeout(queue_timeout if permits.locked() else None):
            await permits.acquire()
    except TimeoutError:
        raise _busy("concurrency limit", _SOON) from None
    try:
        yield
    finally:
        permits.release()


def _late(progress: Progress, *, was_sent: bool) -> UpstreamError:
    """Return the error for a passed deadline."""
    if not was_sent:
        return UpstreamUnavailable(
            "The deadline passed before the request was sent to the provider.", status=504, code="deadline_exceeded"
        )
    error = uncertain("The deadline passed before the provider answered.", timed_out=True)
    if progress.upstream_task_id:
        error.details["upstream_task_id"] = progress.upstream_task_id
    return error


def _busy(limit: str, seconds: float) -> UpstreamUnavailable:
    return UpstreamUnavailable(
        f"The provider's {limit} is reached; nothing was sent.", code="upstream_busy", retry_after=max(1, ceil(seconds))
    )
