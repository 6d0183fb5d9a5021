"""Errors of the client: the request is wrong, unknown or not permitted, and nothing was sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from imagegate.errors.base import ImagegateError


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


class ModelNotFound(ImagegateError):
    """No route and no contract names the model."""

    status = 404
    type = "invalid_request_error"
    code = "model_not_found"


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
