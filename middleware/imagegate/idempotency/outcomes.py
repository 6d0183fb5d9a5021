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


def no_longer_kept() -> KeptReply:
    """Return the error for a response whose body was evicted."""
    error = ImagegateError(
        "This request was answered before, but the answer is no longer kept. It is not sent again under this "
        "Idempotency-Key.",
        status=410,
        type="invalid_request_error",
        code="idempotency_reply_gone",
        param="Idempotency-Key",
        headers=[(b"x-should-retry", b"false")],
    )
    return error_reply(error, Progress(""))
