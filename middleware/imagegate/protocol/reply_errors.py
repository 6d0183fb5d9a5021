"""What a reply's document says of pictures that were not made: a task that has failed, items without one. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from imagegate.errors import ModerationBlocked, UpstreamError, UpstreamRefused
from imagegate.protocol.error_reader import provider_error, read_error
from imagegate.protocol.messages import ReplyImage
from imagegate.protocol.provider_errors import is_moderated, refusal, shorten, some_failed, uncertain
from imagegate.protocol.reply_pictures import is_withheld
from imagegate.protocol.reply_tasks import Bucket

NO_IMAGE: Final = "no_image"
FILTERED: Final = "CONTENT_FILTERED"
"""A word for a picture that was blurred for its content."""
_GEMINI_BLOCKS: Final = frozenset(
    [
        "SAFETY",
        "IMAGE_SAFETY",
        "PROHIBITED_CONTENT",
        "IMAGE_PROHIBITED_CONTENT",
        "RECITATION",
        "IMAGE_RECITATION",
        "BLOCKLIST",
        "SPII",
    ]
)


def redirected(status: int, request_id: str | None) -> UpstreamError:
    """Return the error of a complete 3xx: a POST that was answered so has made nothing."""
    return UpstreamRefused(
        f"The provider answered {status}: its API is at another address than the one that is configured.",
        status=502,
        code="upstream_redirect",
        request_id=request_id,
    )


def ended(bucket: Bucket, document: Mapping[str, Any], word: str, request_id: str | None) -> UpstreamError:
    """Return the error of a task that will have no pictures."""
    found = read_error(document)
    message = shorten(found.message) if found else ""
    if bucket == "moderated" or (found and is_moderated(found)):
        code = found.code if found and found.code == "content_policy_violation" else None
        return ModerationBlocked(message or f"The provider answered: {word}.", code=code, request_id=request_id)
    if bucket == "lost":
        return UpstreamRefused(
            message or "The provider no longer knows the task.",
            status=404,
            type="invalid_request_error",
            code="task_not_found",
            request_id=request_id,
        )
    if bucket == "cancelled" or document.get("cancelled") is True:
        return UpstreamRefused(message or "The task was cancelled.", code="task_cancelled", request_id=request_id)
    code = found.code if found and found.code else "generation_failed"
    return UpstreamRefused(message or "The provider could not make the image.", code=code, request_id=request_id)


def has_failed(item: Any) -> bool:
    """Return whether an item without a picture says that there will be none."""
    return isinstance(item, dict) and (_has_reason(item) or is_withheld(item))


def _has_reason(item: dict[str, Any]) -> bool:
    """Return whether an item without a picture says why: as ``error``, or as ``code`` and ``message`` at DashScope."""
    return bool(item.get("error")) or (isinstance(item.get("code"), str) and isinstance(item.get("message"), str))


def incomplete(failed: list[Any], images: list[ReplyImage], request_id: str | None) -> UpstreamError:
    """Return the error for missing images; it lists those that were made."""
    reasons = [found for item in failed if _has_reason(item) and (found := read_error(item))]
    errors = [refusal(reason, request_id=request_id) for reason in reasons] or [
        ModerationBlocked("The provider withheld the image for its content.", request_id=request_id)
    ]
    errors += errors[:1] * (len(failed) - len(errors))  # those that say nothing
    whole = some_failed(errors, len(images))
    whole.made, whole.is_whole = tuple(images), True
    return whole


def without_images(document: Mapping[str, Any], request_id: str | None, *, is_over: bool) -> UpstreamError:
    """Return the error of a document in which there are no pictures, and no task that goes on.

    Args:
        is_over: it is the end of a task.
    """
    if found := provider_error(document):
        return refusal(found, request_id=request_id, is_over=is_over)
    said = read_error(document)
    reason = f" It says: {said.message}" if said and said.says_something else ""
    error = uncertain(f"The provider's reply contains no image.{reason}", request_id=request_id)
    error.code = NO_IMAGE
    return error


def blocked_word(document: Mapping[str, Any]) -> str | None:
    """Return the word of a refusal that some providers hide in a 200 without an error; None: there is none."""
    feedback = document.get("promptFeedback")
    if isinstance(feedback, dict) and feedback.get("blockReason"):
        return str(feedback["blockReason"])
    candidates = document.get("candidates")
    for candidate in candidates if isinstance(candidates, list) else []:
        reason = candidate.get("finishReason") if isinstance(candidate, dict) else None
        if isinstance(reason, str) and reason in _GEMINI_BLOCKS:
            return reason
    reasons = (document.get("finish_reason"), document.get("finishReason"))
    return FILTERED if FILTERED in reasons else None
