"""What all errors have in common: the envelope, and what may follow from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

_LONGEST_CHAIN: Final = 16
"""Errors that stand behind one another."""


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


def forget_frames(error: BaseException) -> None:
    """Forget the frames of an error that has been answered.

    Its traceback knows frames, which know the error and all that the request has held: only the collector frees those.
    """
    known: BaseException | None = error
    for _ in range(_LONGEST_CHAIN):
        if known is None:
            return
        known.__traceback__ = None
        known = known.__cause__ or known.__context__
