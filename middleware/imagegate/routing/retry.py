"""Selects the next candidate and the delay before it. Pure: time and randomness are passed in.

Fallback comes before retry: a candidate is retried only when no other one is left. Only an error that proves that
nothing was made leads to another attempt; a request that may have been billed is never sent again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

import msgspec

from imagegate.errors import ImagegateError, ModerationBlocked, UpstreamError, UpstreamUnavailable

Random = Callable[[], float]
"""Returns a number in [0, 1)."""


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Number and delay of retries. All times in seconds."""

    retries: int = 1
    """Maximum number of retries of one candidate."""
    backoff: float = 0.5
    """Upper bound of the delay before the first retry; doubles with each further retry."""
    longest_wait: float = 10.0
    """Maximum delay before a retry. A longer `Retry-After` rules the candidate out."""
    queue_timeout: float = 10.0
    """Maximum total wait of a request for permits and rate-limit slots of upstreams."""
    fall_back_on: frozenset[int] = frozenset()
    """Statuses below 500, such as 402, of rejections that also fall back to the next candidate."""

    def allows_fallback(self, error: ImagegateError) -> bool:
        """Return whether the next candidate may be asked after `error`."""
        if error.allows_fallback:
            return True
        rejected = isinstance(error, UpstreamError) and error.outcome == "rejected"
        return rejected and error.status in self.fall_back_on and not isinstance(error, ModerationBlocked)

    def pause(self, retry: int, retry_after: float | None, random: Random) -> float | None:
        """Return the delay before a retry: exponential backoff with full jitter, at least `retry_after`.

        Args:
            retry: counted from 0.
            retry_after: seconds that the provider asked for; None: it did not.
            random: source of jitter.

        Returns:
            Seconds; None: `retry_after` exceeds `longest_wait`.
        """
        if retry_after is not None and retry_after > self.longest_wait:
            return None
        jitter = random() * min(self.backoff * 2.0 ** min(retry, 32), self.longest_wait)
        return min((retry_after or 0.0) + jitter, self.longest_wait)


class Attempt(msgspec.Struct, frozen=True):
    """The next attempt; the defaults are those of the first one."""

    place: int = 0
    """Index of the candidate, from 0."""
    pause: float = 0.0
    """Seconds to wait before the attempt."""
    queue_timeout: float = 0.0
    """Maximum seconds to wait for a permit and a rate-limit slot."""
    until: float | None = None
    """Deadline on the event loop's clock; None: no deadline."""
    is_retry: bool = False
    """Whether these attempts have asked the candidate before."""


@dataclass(slots=True)
class _Candidate:
    asked: int = 0
    """Number of requests sent, or tried to send."""
    visited: bool = False
    is_out: bool = False
    ready_at: float = 0.0
    error: ImagegateError | None = None


class Attempts:
    """The candidates for one request, and the outcome of the attempts so far.

    Args:
        count: number of candidates, in order of preference.
        policy: number and delay of retries.
        random: source of jitter.
        asked: number of earlier attempts for each, where a streamed form has to be sent again.
        until: deadline of the exchange. A request sent just before it would be paid for and cancelled, so no delay and
            no wait for a permit takes more than half of the remaining time.
    """

    def __init__(
        self, count: int, policy: RetryPolicy, random: Random, *, asked: int = 0, until: float | None = None
    ) -> None:
        self._policy = policy
        self._until = until
        self._random = random
        self._asked_before = asked
        self._candidates = [_Candidate(asked=asked) for _ in range(count)]
        self._queue_timeout = policy.queue_timeout

    def next(self, now: float) -> Attempt | None:
        """Return the next attempt; None: no candidate is left, and `error` holds the reason."""
        left = [place for place, candidate in enumerate(self._candidates) if not candidate.is_out]
        if not left:
            return None
        # A candidate that was not visited is ready at 0 and comes first; `min` keeps the order of preference.
        place, pause = left[0], 0.0
        if self._candidates[place].visited:
            place = min(left, key=lambda place: (self._candidates[place].visited, self._due(place, now)))
            pause = self._due(place, now)
        candidate = self._candidates[place]
        left_over = inf if self._until is None else self._until - now - pause
        if left_over <= pause and any(known.error for known in self._candidates):
            return None
        queue_timeout = max(min(self._queue_timeout, left_over / 2), 0.0) if candidate.visited else 0.0
        return Attempt(place, pause, queue_timeout, self._until, is_retry=candidate.asked > self._asked_before)

    def _due(self, place: int, now: float) -> float:
        return max(self._candidates[place].ready_at - now, 0.0)

    def failed(self, place: int, error: ImagegateError, now: float, *, waited: float = 0.0) -> bool:
        """Record a failed attempt.

        Args:
            place: index of the candidate.
            error: of the attempt.
            now: on the event loop's clock.
            waited: seconds that it spent in the queue.

        Returns:
            Whether another candidate may be asked; if not, the error ends the exchange.
        """
        candidate = self._candidates[place]
        self._queue_timeout = max(0.0, self._queue_timeout - waited)
        if isinstance(error, UpstreamUnavailable):
            self._was_not_asked(candidate, error, now)
            return True
        candidate.visited = True
        candidate.error = error
        pause = self._policy.pause(candidate.asked, getattr(error, "retry_after", None), self._random)
        candidate.asked += 1
        candidate.is_out = not error.is_retryable or candidate.asked > self._policy.retries or pause is None
        candidate.ready_at = now + (pause or 0.0)
        return self._policy.allows_fallback(error)

    def _was_not_asked(self, candidate: _Candidate, error: UpstreamUnavailable, now: float) -> None:
        """Queue once for a candidate at its limit, after all others were asked; never for one with an open breaker."""
        candidate.is_out = candidate.visited or not error.is_retryable or self._queue_timeout <= 0
        candidate.visited = True
        candidate.ready_at = now
        if candidate.error is None:
            candidate.error = error

    def forget(self) -> None:
        """Drop the errors, whose tracebacks keep the request's frames, and with them its data, alive."""
        self._candidates.clear()

    @property
    def error(self) -> tuple[int, ImagegateError]:
        """The most informative error and the index of its candidate.

        The error of a provider that was asked comes first, then one of a provider at its limit, which the client may
        retry, then one of a contract that the request does not fit.
        """
        failures = [(place, found.error) for place, found in enumerate(self._candidates) if found.error is not None]
        return min(failures, key=lambda failure: _rank(failure[1]))


def _rank(error: ImagegateError) -> int:
    if isinstance(error, UpstreamUnavailable):
        return 1
    return 0 if isinstance(error, UpstreamError) else 2
