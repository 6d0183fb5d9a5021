"""Sends the parts of one request for many images with bounded concurrency, and retries only the rejected parts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from imagegate.errors import ImagegateError, UpstreamError
from imagegate.protocol.messages import ImageReply
from imagegate.protocol.provider_errors import uncertain
from imagegate.routing.fan_out import gravest, incomplete
from imagegate.routing.retry import Attempt, Random, RetryPolicy
from imagegate.telemetry.progress import Progress

AskPart = Callable[[int, int, Attempt], Awaitable[ImageReply]]
"""Requests the part at that place, with its number of images and the queue timeout of the attempt."""


class FanOut:
    """Returns all images or raises: a reply never carries fewer images than were requested.

    Rejected parts are retried once other parts have been made and paid for. Where no part was made, the error goes to
    the caller, which may fall back to another candidate.

    Args:
        sizes: number of images of each part.
        ask: sends one part.
        parallel: maximum number of concurrent parts.
        policy: number and delay of retries.
        random: source of jitter.
        progress: counts the retries.
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
        self._permits = asyncio.Semaphore(parallel)
        self._policy = policy
        self._random = random
        self._progress = progress
        self._replies: dict[int, ImageReply] = {}
        self._failures: list[Exception] = []

    async def run(self, attempt: Attempt) -> Sequence[ImageReply]:
        """Run all parts and return their replies, in the order of the parts.

        Args:
            attempt: the first part uses its queue timeout; the others wait up to the policy's.

        Raises:
            UpstreamError: the most severe error of a part, with the images that were made.
        """
        try:
            return await self._run(attempt)
        finally:
            self._failures.clear()  # tracebacks refer to frames that refer to this object

    async def _run(self, attempt: Attempt) -> Sequence[ImageReply]:
        retries = 0
        while True:
            await self._ask_missing(attempt)
            if len(self._replies) == len(self._sizes):
                return self._made
            pause = self._pause(retries, attempt.until)
            if pause is None:
                error = gravest(self._failures)
                raise incomplete(error, self._made, sum(self._sizes)) if isinstance(error, ImagegateError) else error
            retries += 1
            self._progress.retries += 1
            attempt = msgspec.structs.replace(attempt, queue_timeout=self._policy.queue_timeout)
            await asyncio.sleep(pause)

    @property
    def _made(self) -> list[ImageReply]:
        return [self._replies[index] for index in sorted(self._replies)]

    def _pause(self, retries: int, until: float | None) -> float | None:
        """Return the seconds before the missing parts are retried; None: they are not retried."""
        errors = [error for error in self._failures if isinstance(error, ImagegateError) and error.is_retryable]
        if not self._replies or retries >= self._policy.retries or len(errors) < len(self._failures):
            return None
        asked = [error.retry_after for error in errors if isinstance(error, UpstreamError) and error.retry_after]
        pause = self._policy.pause(retries, max(asked, default=None), self._random)
        late = until is not None and asyncio.get_running_loop().time() + (pause or 0.0) >= until
        return None if late else pause

    async def _ask_missing(self, attempt: Attempt) -> None:
        self._failures.clear()
        follower = msgspec.structs.replace(attempt, queue_timeout=self._policy.queue_timeout)
        async with asyncio.TaskGroup() as tasks:
            for index in range(len(self._sizes)):
                if index not in self._replies:
                    tasks.create_task(self._ask_for(index, attempt if index == 0 else follower))

    async def _ask_for(self, index: int, attempt: Attempt) -> None:
        async with self._permits:
            if self._failures:
                return  # a part that is not sent costs nothing, should the whole fail
            try:
                self._replies[index] = await self._ask(index, self._sizes[index], attempt)
            except asyncio.CancelledError:
                self._failures.append(uncertain("The request to the provider was cancelled."))
                raise
            except Exception as error:
                self._failures.append(error)
