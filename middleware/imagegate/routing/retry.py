"""Which candidate is asked next, and after what pause. Pure: time and chance are passed in.

Other candidates come first: asking the same one again is for when nobody else is left. Only an error that shows that
nothing was made leads to another try; what the provider may have made is never sent again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

import msgspec

from imagegate.errors import ImagegateError, ModerationBlocked, UpstreamError, UpstreamUnavailable

Random = Callable[[], float]
"""A number from 0 up to 1."""


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How often, and how soon. Seconds."""

    retries: int = 1
    """How often the same candidate is asked again."""
    backoff: float = 0.5
    """At most before the first retry; twice as long before each further one."""
    longest_wait: float = 10.0
    """Before one retry. A provider that asks for a longer pause in Retry-After is not waited for."""
    queue_timeout: float = 10.0
    """That a request waits in all for places at upstreams that are at their limits."""
    fall_back_on: frozenset[int] = frozenset()
    """Statuses below 500, such as 402, with which a refused request goes to the next candidate as well."""

    def allows_fallback(self, error: ImagegateError) -> bool:
        if error.allows_fallback:
            return True
        rejected = isinstance(error, UpstreamError) and error.outcome == "rejected"
        return rejected and error.status in self.fall_back_on and not isinstance(error, ModerationBlocked)

    def pause(self, retry: int, retry_after: float | None, random: Random) -> float | None:
        """Before a retry, counted from 0: exponential with full jitter, but never less than Retry-After.

        Returns:
            None: longer than is worth waiting for.
        """
        if retry_after is not None and retry_after > self.longest_wait:
            return None
        jitter = random() * min(self.backoff * 2.0 ** min(retry, 32), self.longest_wait)
        return min((retry_after or 0.0) + jitter, self.longest_wait)


class Attempt(NamedTuple):
    """The next step."""

    place: int
    """Of the candidate, counted from 0."""
    pause: float
    """Seconds before it is asked."""
    patience: float
    """Seconds that it may wait for a place then."""
    until: float | None
    """When it must be over; None: never."""
    is_retry: bool
    """Whether the candidate was asked before, by these attempts."""


@dataclass(slots=True)
class _Candidate:
    asked: int = 0
    """How often something was sent, or tried to be sent."""
    visited: bool = False
    is_out: bool = False
    ready_at: float = 0.0
    error: ImagegateError | None = None


class Attempts:
    """The candidates for one request, and what they have answered so far.

    Args:
        count: of candidates, in order of preference.
        asked: how often each was asked before, by a form that must be sent anew.
        until: when the exchange must be over. What is asked just before would be paid for and given up, so no pause and
            no wait for a place takes more than half of the time that is left.
    """

    def __init__(
        self, count: int, policy: RetryPolicy, random: Random, *, asked: int = 0, until: float | None = None
    ) -> None:
        self._policy = policy
        self._until = until
        self._random = random
        self._asked_before = asked
        self._candidates = [_Candidate(asked=asked) for _ in range(count)]
        self._patience = policy.queue_timeout

    def next(self, now: float) -> Attempt | None:
        """Who is asked next; None: nobody, and `error` tells why."""
        left = [place for place, candidate in enumerate(self._candidates) if not candidate.is_out]
        if not left:
            return None
        # Who was never visited is ready at 0 and comes first; sorting keeps the order of preference.
        place = left[0]
        if self._candidates[place].visited:
            place = min(left, key=lambda place: (self._candidates[place].visited, self._due(place, now)))
        candidate = self._candidates[place]
        pause = self._due(place, now)
        left_over = inf if self._until is None else self._until - now - pause
        if left_over <= pause and any(known.error for known in self._candidates):
            return None
        patience = max(min(self._patience, left_over / 2), 0.0) if candidate.visited else 0.0
        return Attempt(place, pause, patience, self._until, is_retry=candidate.asked > self._asked_before)

    def _due(self, place: int, now: float) -> float:
        return max(self._candidates[place].ready_at - now, 0.0)

    def failed(self, place: int, error: ImagegateError, now: float, *, waited: float = 0.0) -> bool:
        """Takes down what became of an attempt.

        Args:
            waited: seconds that it waited for a place.

        Returns:
            Whether the exchange may go on; if not, the error is its end.
        """
        candidate = self._candidates[place]
        self._patience = max(0.0, self._patience - waited)
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
        """Full: it is waited for when all others have been asked, once. Its breaker is open: it is not."""
        candidate.is_out = candidate.visited or not error.is_retryable or self._patience <= 0
        candidate.visited = True
        candidate.ready_at = now
        if candidate.error is None:
            candidate.error = error

    def forget(self) -> None:
        """Lets go of the errors: they know the frames that know us, and with them all that the request has held."""
        self._candidates.clear()

    @property
    def error(self) -> tuple[int, ImagegateError]:
        """The candidate whose error tells the client most, and the error.

        That of a provider that was asked comes before that of one that was not, and this before that of one for which
        the request cannot be written: with the former the client may come again.
        """
        failures = [(place, found.error) for place, found in enumerate(self._candidates) if found.error is not None]
        return min(failures, key=lambda failure: _rank(failure[1]))


def _rank(error: ImagegateError) -> int:
    if isinstance(error, UpstreamUnavailable):
        return 1
    return 0 if isinstance(error, UpstreamError) else 2
