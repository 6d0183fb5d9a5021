"""Errors of providers, by what became of the request."""

from __future__ import annotations

from typing import Any, Final, Literal

from imagegate.errors.base import ImagegateError

Outcome = Literal["not_sent", "rejected", "uncertain"]
"""What became of a paid POST. Only the first two may be tried again or elsewhere (README, "Nothing is paid twice").

Retries, fallback, circuit breakers, metrics and logs all go by it and by the properties of `ImagegateError`.
"""

_MAY_PASS: Final = frozenset({408, 409, 429})
"""Refusals that are about the moment, not about the request."""
_WILL_NOT_PASS: Final = frozenset({501, 505})
_NO_MONEY: Final = frozenset({"insufficient_quota", "project_spend_limit_exceeded", "billing_hard_limit_reached"})
"""OpenAI answers 429 also where an account has nothing left, which no waiting mends."""
_MISPLACED: Final = frozenset({"upstream_redirect"})
"""The provider is elsewhere, and no waiting brings it back."""
_ABOUT_THE_REQUEST: Final = frozenset(
    {"model_not_found", "invalid_request_error", "image_generation_user_error", "bad_request_error", "not_found_error"}
)
"""Codes and types. Relays answer 503 ("no channel") for unknown models: a misspelled name is not an outage."""


class UpstreamError(ImagegateError):
    """The provider did not answer with a picture."""

    status = 502
    type = "upstream_error"
    code: str | None = "upstream_error"
    outcome: Outcome = "uncertain"

    def __init__(
        self, message: str, *, retry_after: float | None = None, request_id: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(message, **kwargs)
        self.made: tuple[Any, ...] = ()
        """The `protocol.messages.ReplyImage` that were made all the same; Deliver lists their links."""
        self.is_whole = False
        """Whether the reply came in whole, so that nothing but `made` was made."""
        self.ends_task = False
        """Whether the provider said in so many words that its task ended without a picture."""
        self.retry_after = retry_after
        """Seconds, as the provider asked."""
        if retry_after is not None:
            self.headers.append((b"retry-after", str(max(0, min(round(retry_after), 86400))).encode()))
        if request_id:
            self.details["upstream_request_id"] = request_id
        if self.outcome == "uncertain":
            # The official SDKs repeat 5xx by themselves, which may pay a second time.
            self.headers.append((b"x-should-retry", b"false"))

    def costs_nothing(self) -> None:
        """Mark the failed request as free of charge, so that it may be sent again."""
        if self.outcome == "uncertain":
            self.outcome = "not_sent"
            self.headers.remove((b"x-should-retry", b"false"))

    @property
    def nothing_sent(self) -> bool:
        return self.outcome == "not_sent"

    @property
    def allows_fallback(self) -> bool:
        return self.nothing_sent or (self.outcome == "rejected" and (self.status in _MAY_PASS or self.status >= 500))

    @property
    def is_retryable(self) -> bool:
        hopeless = self.ends_task or self.status in _WILL_NOT_PASS or self.code in _NO_MONEY | _MISPLACED
        return self.allows_fallback and not hopeless and not self._is_about_the_request

    @property
    def counts_against_breaker(self) -> bool:
        return (self.status >= 500 or self.status == 408) and not self._is_about_the_request

    @property
    def _is_about_the_request(self) -> bool:
        return self.outcome == "rejected" and not _ABOUT_THE_REQUEST.isdisjoint((self.code, self.type))


class UpstreamRefused(UpstreamError):
    """A complete reply that carries the provider's own error."""

    outcome: Outcome = "rejected"


class ModerationBlocked(UpstreamRefused):
    """Refused for its content, however the provider says so (several hide it in a 200)."""

    status = 400
    type = "image_generation_user_error"
    code = "moderation_blocked"

    @property
    def allows_fallback(self) -> bool:
        return False


class UpstreamUnreachable(UpstreamError):
    """The request certainly did not reach the provider."""

    code = "upstream_unreachable"
    outcome: Outcome = "not_sent"


class UpstreamUnavailable(UpstreamError):
    """The provider was not asked: its circuit breaker is open, or it is at a limit of the configuration."""

    status = 503
    code = "upstream_unavailable"
    outcome: Outcome = "not_sent"

    @property
    def is_retryable(self) -> bool:
        return self.code == "upstream_busy"

    @property
    def counts_against_breaker(self) -> bool:
        return False


class UpstreamUncertain(UpstreamError):
    """The provider may have received the request: time-out, reset, cut reply, or a page that is not its own error."""

    code = "upstream_uncertain"
