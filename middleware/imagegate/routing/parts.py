"""The parts of one request for many images: asked a few at a time, and again those alone that were refused."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from imagegate.errors import ImagegateError, UpstreamError
from imagegate.protocol.messages import ImageReply
from imagegate.protocol.provider_errors import uncertain
from imagegate.routing.fan_out import gravest, incomplete
from imagegate.routing.retry import Attempt, Random, RetryPolicy
from imagegate.telemetry.progress import Progress

AskPart = Callable[[int, Attempt], Awaitable[ImageReply]]
"""Asks for so many images, as patient as the attempt."""


class FanOut:
    """All or an error: a reply with fewer images than were asked for is never made of them.

    Parts that were refused are asked for again where others were made and paid for. Where none was, the whole is: that
    is the caller's to decide, who may know another candidate.

    Args:
        sizes: images of each part.
        ask: asks for one.
        parallel: parts at a time.
        policy: how often, and how soon, refused ones are asked for again.
        progress: counts that.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        ask: AskPart,
        *,
        parallel: int,
        policy: RetryPolicy,
        random: Random,
        progress: Progress,
    ) -> None:
        self._sizes = sizes
        self._ask = ask
        self._places = asyncio.Semaphore(parallel)
        self._policy = policy
        self._random = random
        self._progress = progress
        self._replies: dict[int, ImageReply] = {}
        self._failures: list[Exception] = []

    async def run(self, attempt: Attempt) -> Sequence[ImageReply]:
        """The replies, in the order of the parts.

        Args:
            attempt: of which the first part is. Where that got a place the others follow, and wait for theirs.

        Raises:
            UpstreamError: that of one part; it lists what was made.
        """
        try:
            return await self._run(attempt)
        finally:
            self._failures.clear()  # errors know the frames that know us

    async def _run(self, attempt: Attempt) -> Sequence[ImageReply]:
        retries = 0
        while True:
            await self._ask_missing(attempt)
            if len(self._replies) == len(self._sizes):
                return self._made
            pause = self._pause(retries, attempt.until)
            if pause is None:
                error = gravest(self._failures)
                raise incomplete(error, self._made, sum(self._sizes)) if isinstance(error, UpstreamError) else error
            retries += 1
            self._progress.retries += 1
            attempt = attempt._replace(patience=self._policy.queue_timeout)
            await asyncio.sleep(pause)

    @property
    def _made(self) -> list[ImageReply]:
        return [self._replies[place] for place in sorted(self._replies)]

    def _pause(self, retries: int, until: float | None) -> float | None:
        """Before what is missing is asked for again; None: it is not."""
        errors = [error for error in self._failures if isinstance(error, ImagegateError) and error.is_retryable]
        if not self._replies or retries >= self._policy.retries or len(errors) < len(self._failures):
            return None
        asked = [error.retry_after for error in errors if isinstance(error, UpstreamError) and error.retry_after]
        pause = self._policy.pause(retries, max(asked, default=None), self._random)
        late = until is not None and asyncio.get_running_loop().time() + (pause or 0.0) >= until
        return None if late else pause

    async def _ask_missing(self, attempt: Attempt) -> None:
        self._failures.clear()
        follower = attempt._replace(patience=self._policy.queue_timeout)
        async with asyncio.TaskGroup() as tasks:
            for place, n in enumerate(self._sizes):
                if place not in self._replies:
                    tasks.create_task(self._ask_for(place, n, attempt if place == 0 else follower))

    async def _ask_for(self, place: int, n: int, attempt: Attempt) -> None:
        async with self._places:
            if self._failures:
                return  # what has not been sent need not be paid for as long as the whole may fail
            try:
                self._replies[place] = await self._ask(n, attempt)
            except asyncio.CancelledError:
                self._failures.append(uncertain("The request to the provider was given up."))
                raise
            except Exception as error:
                self._failures.append(error)
