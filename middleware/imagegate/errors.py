"""Every error that a client can see, and the envelope it is sent in.

::

    ImagegateError
    ├── RequestError              400  the request is wrong; names the field
    │   ├── ContentRefused        400  by the application's moderation
    │   ├── PayloadTooLarge       413
    │   ├── RequestTimeout        408
    │   └── UnsupportedMedia      415
    ├── AuthenticationError       401
    ├── NotPermitted              403  the key is good, but not for this
    ├── ModelNotFound             404
    ├── Overloaded                503  nothing was sent; try again later
    │   └── ShuttingDown          503  the gateway is shutting down
    ├── ContentWithheld           400  the picture was made, and the application's moderation withholds it
    ├── StorageError              502  the picture was made but could not be stored
    ├── FetchError                502  the provider's link could not be read
    └── UpstreamError                  the provider did not answer with a picture
        ├── UpstreamRefused            its own error, in the status that it meant
        │   └── ModerationBlocked 400  refused for its content
        ├── UpstreamUnreachable   502  nothing reached it
        ├── UpstreamUnavailable   503  it was not asked: its breaker is open, or it is at its limits
        └── UpstreamUncertain     502  it may have made the picture all the same (504 on time-out)

`ConfigError` is for operators and never reaches a client.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec

Outcome = Literal["not_sent", "rejected", "uncertain"]
"""What became of a paid POST. Only the first two may be tried again or elsewhere (README, "Nothing is paid twice").

Retries, fallback, circuit breakers, metrics and logs all go by it and by the properties of `ImagegateError`.
"""

_MAY_PASS: Final = frozenset({408, 409, 429})
"""Refusals that are about the moment, not about the request."""
_WILL_NOT_PASS: Final = frozenset({501, 505})
_LONGEST_CHAIN: Final = 16
"""Errors that stand behind one another."""
_NO_MONEY: Final = frozenset({"insufficient_quota", "project_spend_limit_exceeded", "billing_hard_limit_reached"})
"""OpenAI answers 429 also where an account has nothing left, which no waiting mends."""
_MISPLACED: Final = frozenset({"upstream_redirect"})
"""The provider is elsewhere, and no waiting brings it back."""
_ABOUT_THE_REQUEST: Final = frozenset(
    {"model_not_found", "invalid_request_error", "image_generation_user_error", "bad_request_error", "not_found_error"}
)
"""Codes and types. Relays answer 503 ("no channel") for unknown models: a misspelled name is not an outage."""


class ConfigError(ValueError):
    """The configuration cannot be used; the message names the key and, where it is known, the line."""


class ImagegateError(Exception):
    """An error with an OpenAI envelope.

    Args:
        message: for the client; free of hosts, keys and internals.
        param: the field at fault, as the client calls it.
        code: machine-readable reason, OpenAI's own word where it has one.
    """

    status: int = 500
    type: str = "server_error"
    code: str | None = None

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        type: str | None = None,  # noqa: A002 - the envelope's own word
        status: int | None = None,
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        if code is not None:
            self.code = code
        if type is not None:
            self.type = type
        if status is not None:
            self.status = status
        self.headers: list[tuple[bytes, bytes]] = list(headers)
        self.details: dict[str, Any] = {}
        """Members of ``error.imagegate``: upstream, its request id, what was made all the same."""

    @property
    def nothing_sent(self) -> bool:
        """Whether nothing of the request was sent to a provider."""
        return False

    @property
    def allows_fallback(self) -> bool:
        """Whether another candidate may be asked without paying twice or hiding the client's own mistake."""
        return self.nothing_sent

    @property
    def is_retryable(self) -> bool:
        """Whether a retry of the same candidate costs nothing and may succeed."""
        return False

    @property
    def counts_against_breaker(self) -> bool:
        """Whether the error counts against the upstream's circuit breaker; client errors and rate limits do not."""
        return False

    def envelope(self) -> dict[str, Any]:
        error: dict[str, Any] = {
            "message": self.message,
            "type": self.type,
            "param": self.param,
            "code": self.code,
        }
        if self.details:
            error["imagegate"] = self.details
        return {"error": error}

    def body(self) -> bytes:
        return msgspec.json.encode(self.envelope())


class RequestError(ImagegateError):
    """The request cannot be honoured; nothing was sent."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_value"

    @property
    def nothing_sent(self) -> bool:
        return True


class PayloadTooLarge(RequestError):
    """The body, or one part of it, is over the limit."""

    status = 413
    code = "payload_too_large"


class RequestTimeout(RequestError):
    """No data of the body arrived in time."""

    status = 408
    code = "request_timeout"


class UnsupportedMedia(RequestError):
    """The body's media type is not one that the endpoint reads."""

    status = 415
    code = "unsupported_media_type"


class AuthenticationError(ImagegateError):
    """No key, or a wrong one."""

    status = 401
    type = "invalid_request_error"
    code = "invalid_api_key"

    @property
    def nothing_sent(self) -> bool:
        return True


class NotPermitted(ImagegateError):
    """The client is known, and may not ask for this."""

    status = 403
    type = "invalid_request_error"
    code = "not_permitted"

    @property
    def nothing_sent(self) -> bool:
        return True


class ContentRefused(RequestError):
    """The application's moderation refuses the request; nothing was sent."""

    code = "content_policy_violation"


class ContentWithheld(ImagegateError):
    """The application's moderation withholds images that were made, and are paid for."""

    status = 400
    type = "invalid_request_error"
    code = "content_policy_violation"

    def __init__(self, message: str, **kwargs: Any) -> None:
        # The official SDKs repeat 5xx by themselves, which would pay a second time.
        super().__init__(message, headers=[(b"x-should-retry", b"false")], **kwargs)


class ModelNotFound(ImagegateError):
    """No route and no contract names the model."""

    status = 404
    type = "invalid_request_error"
    code = "model_not_found"


class Overloaded(ImagegateError):
    """The limit of concurrent requests, or of their memory, is reached."""

    status = 503
    type = "server_error"
    code = "overloaded"


class ModerationUnavailable(Overloaded):
    """The application's moderation could not be asked, so nothing was sent."""

    code = "moderation_unavailable"

    def __init__(self) -> None:
        super().__init__(
            "The request cannot be checked at the moment, so nothing was sent. Retry later.",
            headers=[(b"retry-after", b"5")],
        )

    @property
    def nothing_sent(self) -> bool:
        return True


class ShuttingDown(Overloaded):
    """The gateway is shutting down and accepts no new requests; another process will answer.

    Args:
        more: headers of the answer beside Retry-After.
    """

    code = "shutting_down"

    def __init__(self, more: Sequence[tuple[bytes, bytes]] = ()) -> None:
        super().__init__("The gateway is shutting down. Retry in a moment.", headers=[(b"retry-after", b"1"), *more])


class NoRoom(Overloaded):
    """There is no room for the images that would be made, so nothing was sent."""

    code = "no_room"

    def __init__(self) -> None:
        super().__init__(
            "The gateway has no room for the images, so nothing was sent. Retry later.",
            headers=[(b"retry-after", b"10")],
        )

    @property
    def nothing_sent(self) -> bool:
        return True


class ImageStoreUnavailable(NoRoom):
    """The store does not take images at the moment, so nothing was sent."""

    code = "store_unavailable"

    def __init__(self) -> None:
        super().__init__()
        self.message = "The gateway's image store cannot be used, so nothing was sent. Retry later."


class StorageError(ImagegateError):
    """The pictures were made, but the store did not take them; base64 is never sent in a link's place."""

    status = 502
    code = "storage_failed"


class FetchError(ImagegateError):
    """The provider answered with a link that could not be read."""

    status = 502
    code = "image_fetch_failed"


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


def type_error(field: str, expected: str, value: Any) -> RequestError:
    """Return OpenAI's error for a member of the wrong JSON type."""
    got = {
        type(None): "null",
        bool: "a boolean",
        int: "an integer",
        float: "a decimal number",
        str: "a string",
        list: "an array",
        dict: "an object",
    }.get(type(value), "something else")
    return RequestError(
        f"Invalid type for '{field}': expected {expected}, but got {got} instead.",
        param=field,
        code="invalid_type",
    )


def choice_error(field: str, value: str, allowed: Sequence[Any]) -> RequestError:
    """Return OpenAI's error for a value outside an enumeration."""
    words = [repr(word) for word in allowed]
    listed = words[0] if len(words) == 1 else f"{', '.join(words[:-1])}, and {words[-1]}"
    shown = value if len(value) <= 64 else value[:61] + "..."
    return RequestError(f"Invalid value: {shown!r}. Supported values are: {listed}.", param=field)


def forget_frames(error: BaseException) -> None:
    """For an error that has been answered.

    Its traceback knows frames, which know the error and all that the request has held: only the collector frees those.
    """
    known: BaseException | None = error
    for _ in range(_LONGEST_CHAIN):
        if known is None:
            return
        known.__traceback__ = None
        known = known.__cause__ or known.__context__
