"""Errors for responses that were lost. Pure."""

from __future__ import annotations

from imagegate.errors import ImagegateError
from imagegate.idempotency.keys import KeptReply, error_reply
from imagegate.protocol.provider_errors import uncertain
from imagegate.telemetry.progress import Progress


def interrupted() -> KeptReply:
    """Return the error for a process that died after it had sent the request."""
    error = uncertain(
        "The gateway that sent this request ended before the provider had answered, so the image may have been made "
        "and billed. It is not sent again under this Idempotency-Key."
    )
    error.code = "interrupted"
    return error_reply(error, Progress(""))


class ReplyGone(ImagegateError):
    """The request was answered before, and the answer is not kept; it is not sent again."""

    status = 410
    type = "invalid_request_error"
    code = "idempotency_reply_gone"

    def __init__(self) -> None:
        super().__init__(
            "This request was answered before, but the answer is no longer kept. It is not sent again under this "
            "Idempotency-Key.",
            param="Idempotency-Key",
            headers=[(b"x-should-retry", b"false")],
        )


def no_longer_kept() -> KeptReply:
    """Return the error for a response whose body was evicted, or could not be kept."""
    return error_reply(ReplyGone(), Progress(""))
