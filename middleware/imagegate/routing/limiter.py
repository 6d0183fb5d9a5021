"""What stands before an upstream: its circuit breaker, its places and its rate limit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from math import ceil
from typing import Any, Final

from imagegate.errors import ImagegateError, UpstreamError, UpstreamUnavailable
from imagegate.protocol.messages import LiveFiles
from imagegate.protocol.provider_errors import uncertain
from imagegate.routing.circuit_breaker import Breaker
from imagegate.routing.rate_limit import RateLimit
from imagegate.telemetry.hooks import BreakerState
from imagegate.telemetry.progress import Progress

Work = Callable[[], Coroutine[Any, Any, None]]

_SOON: Final = 1.0
"""Seconds: when a place may be free that nobody can foresee."""
_FREE: Final = nullcontext(None)
"""Where there is no limit."""


class UpstreamLimiter:
    """Lets requests through to an upstream that is up to them, and learns from what becomes of them.

    Args:
        breaker: asked before anybody waits.
        max_in_flight: requests at a time; None: any number.
        requests_per_minute: None: any number.
        changed: told about each new state of the breaker.
        clock: seconds that never go back.
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
        self._places = asyncio.Semaphore(max_in_flight) if max_in_flight is not None else None
        self._rate = RateLimit(requests_per_minute) if requests_per_minute is not None else None
        self._changed = changed
        self._clock = clock

    def run(
        self,
        work: Work,
        progress: Progress,
        *,
        patience: float,
        until: float | None,
        live: LiveFiles | None = None,
    ) -> Coroutine[Any, Any, None]:
        """Lets one request to the upstream through.

        Args:
            work: is the request.
            progress: gets the time that was spent waiting.
            patience: seconds to wait for a place and a turn.
            until: by the event loop's clock, when the request must be over; None: never.
            live: files that the client is still sending. A provider that hangs up on them may be tired of the client.

        Raises:
            UpstreamUnavailable: it may not be asked now.
            UpstreamUncertain: it had been asked when the time was over.
        """
        if self._breaker.is_shut(self._clock()):
            raise self._shut()
        if self._places is None and self._rate is None:
            return self._permitted(work, progress, until, live)
        return self._queued(work, progress, patience, until, live)

    async def _queued(
        self, work: Work, progress: Progress, patience: float, until: float | None, live: LiveFiles | None
    ) -> None:
        queued_at, has_passed = self._clock(), False
        try:
            async with self._place(patience), self._turn(queued_at + patience):
                progress.queue_seconds += self._clock() - queued_at
                has_passed = True
                await self._permitted(work, progress, until, live)
        finally:
            if not has_passed:
                progress.queue_seconds += self._clock() - queued_at

    def _place(self, patience: float) -> AbstractAsyncContextManager[None]:
        return _FREE if self._places is None else _place(self._places, patience)

    def _turn(self, latest: float) -> AbstractAsyncContextManager[None]:
        return _FREE if self._rate is None else self._turn_of(self._rate, latest)

    @asynccontextmanager
    async def _turn_of(self, rate: RateLimit, latest: float) -> AsyncGenerator[None]:
        now = self._clock()
        turn = rate.take(now, patience=max(latest - now, 0.0))
        if turn is None:
            raise _busy("has had as many requests in a minute as it may", rate.next_turn(now) - now)
        was_used = False
        try:
            await asyncio.sleep(turn - now)
            was_used = True
            yield
        except BaseException as error:
            if not was_used or (isinstance(error, ImagegateError) and error.nothing_sent):
                rate.give_back(turn)
            raise

    async def _permitted(self, work: Work, progress: Progress, until: float | None, live: LiveFiles | None) -> None:
        """With a permit of the breaker's, which is given back with what was learnt."""
        state, sent = self._breaker.state, progress.attempts
        permit = self._breaker.enter(self._clock())
        if permit is None:
            raise self._shut()
        self._tell(state)
        worked: bool | None = None
        try:
            limit = asyncio.timeout_at(until)
            try:
                async with limit:
                    await work()
            except TimeoutError:
                if not limit.expired():
                    raise
                raise _late(progress, was_sent=progress.attempts > sent) from None
            worked = True
        except UpstreamError as error:
            if (live is None or live.is_whole) and (error.counts_against_breaker or not error.nothing_sent):
                worked = not error.counts_against_breaker
            raise
        finally:
            state = self._breaker.state
            self._breaker.leave(permit, worked=worked, now=self._clock())
            self._tell(state)

    def _tell(self, before: BreakerState) -> None:
        if self._breaker.state != before:
            self._changed(self._breaker.state)

    def _shut(self) -> UpstreamUnavailable:
        return UpstreamUnavailable(
            "The provider has failed several times in a row and is left alone for a while; nothing was sent.",
            retry_after=max(1, ceil(self._breaker.seconds_left(self._clock()))),
        )


@asynccontextmanager
async def _place(places: asyncio.Semaphore, patience: float) -> AsyncGenerator[None]:
    if places.locked() and patience <= 0:
        raise _busy("holds as many requests as it may", _SOON)
    try:
        async with asyncio.timeout(patience if places.locked() else None):
            await places.acquire()
    except TimeoutError:
        raise _busy("holds as many requests as it may", _SOON) from None
    try:
        yield
    finally:
        places.release()


def _late(progress: Progress, *, was_sent: bool) -> UpstreamError:
    """The error where the time for a request is over."""
    if not was_sent:
        return UpstreamUnavailable("There was no time left to ask the provider.", status=504, code="deadline_exceeded")
    error = uncertain("The provider had not answered when the time for the request was over.", timed_out=True)
    if progress.upstream_task_id:
        error.details["upstream_task_id"] = progress.upstream_task_id
    return error


def _busy(why: str, seconds: float) -> UpstreamUnavailable:
    return UpstreamUnavailable(
        f"The provider {why}; nothing was sent.", code="upstream_busy", retry_after=max(1, ceil(seconds))
    )
