"""Reading providers' replies: pictures, a task to wait for, or an error. Pure.

The reader is tolerant: relays share a handful of dialects (OpenAI, TokenLab, ToAPIs, New-API) and mix them, so what
a document carries decides, not who sent it.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping
from math import ceil
from typing import Any, Final, Literal
from urllib.parse import urljoin, urlsplit

import msgspec

from imagegate.errors import ModerationBlocked, UpstreamError, UpstreamRefused, UpstreamUncertain
from imagegate.protocol.error_reader import provider_error, read_error
from imagegate.protocol.headers import seconds_asked
from imagegate.protocol.messages import ImageReply, Picture, ReplyImage, StreamEvent
from imagegate.protocol.parsers.lenient_json import read_value
from imagegate.protocol.provider_errors import failure, is_moderated, leaves_open, refusal, shorten, uncertain

Bucket = Literal["pending", "done", "failed", "cancelled", "moderated", "lost"]

WHOLE_BODY: Final = "imagegate-whole-body"
"""Token of a picture that is a reply's whole body."""
_BUCKETS: Final[Mapping[str, Bucket]] = {
    **dict.fromkeys(("queued", "pending", "submitted", "starting", "in_queue", "not_start"), "pending"),
    **dict.fromkeys(("in_progress", "processing", "running", "reasoning", "generating"), "pending"),
    **dict.fromkeys(("completed", "succeeded", "success", "ready"), "done"),
    **dict.fromkeys(("failed", "failure", "error"), "failed"),
    **dict.fromkeys(("canceled", "cancelled"), "cancelled"),
    **dict.fromkeys(("request moderated", "content moderated"), "moderated"),
    **dict.fromkeys(("task not found", "unknown", "task_not_exist"), "lost"),
}
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
_PICTURE_MEMBERS: Final = frozenset(
    ["created", "data", "result", "results", "images", "output", "url", "image_url", "result_url", "b64_json"]
)
"""Where pictures were found; in a reply of ours they stand in ``data`` alone."""
_MOST_TEXT: Final = 16 * 1024
"""Bytes of an error's body, where it is no JSON."""
_TASK_REPLY_FIELDS: Final = ("usage", "size", "quality", "background", "output_format")
"""What is passed on of a finished task; the rest describes the task, not the pictures."""


class PendingTask(msgspec.Struct, frozen=True, kw_only=True):
    """A task that the provider accepted and that is still at work."""

    id: str
    poll_url: str | None = None
    """As the provider gave it: relative or absolute."""
    progress: float | None = None
    """Percent."""
    is_over: bool = False
    """Whether all that is left is to fetch the result from `poll_url`, at once."""


class UpstreamReply(msgspec.Struct, frozen=True, kw_only=True):
    """A complete HTTP reply of a provider."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    pictures: Mapping[str, Picture] = {}
    """Pictures of a large reply, taken out while it came in; tokens stand for them in `body`."""


def read_reply(reply: UpstreamReply, *, now: int) -> ImageReply | PendingTask:
    """Return what a provider's reply carries.

    Args:
        now: Unix time in seconds, for replies that do not say when they were made.

    Raises:
        UpstreamError: the reply is an error, carries no picture, or cannot be read.
    """
    request_id = reply.headers.get("x-request-id")
    if reply.status < 300 and (picture := read_picture(reply, now=now)):
        return picture
    if reply.status >= 400:
        error = _failure(reply, request_id)
        _add_retry_after(error, seconds_asked(reply.headers, now=now))
        raise error
    document = read_object(reply.body)
    if document is None:
        raise uncertain(f"The provider answered {reply.status} with a body that is not JSON.", request_id=request_id)
    return read_document(document, now=now, request_id=request_id)


def is_picture(reply: UpstreamReply) -> bool:
    """Return whether a reply's whole body is a picture, as it says itself."""
    return reply.headers.get("content-type", "").lower().startswith("image/")


def read_picture(reply: UpstreamReply, *, now: int) -> ImageReply | None:
    """Return the picture where it is the whole body of the reply; None: it is not."""
    if not is_picture(reply):
        return None
    encoded = WHOLE_BODY if WHOLE_BODY in reply.pictures else b64encode(reply.body).decode()
    return ImageReply(images=(ReplyImage(b64_json=encoded),), created=now) if encoded else None


def is_ambiguous(status: int, body: bytes) -> bool:
    """Return whether a reply leaves open what was made, whatever else an adapter reads in it."""
    return leaves_open(status, is_explained=status < 400 or read_value(body) is not None)


def read_document(document: Mapping[str, Any], *, now: int, request_id: str | None = None) -> ImageReply | PendingTask:
    """Return the same for a document that came with a status below 400. Raises `UpstreamError`."""
    node = _task_node(document)
    word = node.get("status") or node.get("task_status")
    bucket = _bucket(word) if isinstance(word, str) else None
    if bucket in ("failed", "cancelled", "moderated", "lost"):
        error = _ended(bucket, document, str(word), request_id)
        error.ends_task = True
        raise error
    if bucket == "pending" and str(word).lower() in _BUCKETS and (task := _task(node)):
        return task  # whatever links it carries are not the picture yet
    if blocked := _blocked_word(document):
        raise ModerationBlocked(f"The provider blocked the request: {blocked[:128]}", request_id=request_id)
    read = [(item, _image(item)) for item in _items(document)]
    images = [image for _, image in read if image is not None]
    if not images and bucket == "pending" and (task := _task(node)):
        return task
    if not images and bucket is None and not provider_error(document) and (task := _task(node)) and task.poll_url:
        return task  # BFL and fal answer with no more than where to ask
    failed = [item for item, image in read if image is None and _failed(item)]
    if failed:
        raise _incomplete(failed, images, request_id)
    if not images:
        error = _without_images(document, request_id)
        error.ends_task = bucket == "done" and error.outcome == "rejected"  # fal: COMPLETED, with an error
        raise error
    fields = (
        {name: document[name] for name in _TASK_REPLY_FIELDS if document.get(name) is not None}
        if word is not None
        else {name: value for name, value in document.items() if name not in _PICTURE_MEMBERS and value is not None}
    )
    return ImageReply(images=tuple(images), created=_created(document, now), fields=fields)


def images_of(document: Mapping[str, Any] | None, *, now: int) -> ImageReply | None:
    """Return what an application answered as a reply; None: it carries no images, and is passed on as it is."""
    if document is None or "data" not in document:
        return None
    try:
        reply = read_document(document, now=now)
    except UpstreamError:
        return None
    return reply if isinstance(reply, ImageReply) else None


def event_error(event: StreamEvent) -> UpstreamError | None:
    """Return the error that ends a streamed reply; failures of single images of a group (Seedream) do not end it."""
    document = read_object(event.data)
    if document is None or _kind(event, document).endswith("partial_failed"):
        return None
    if not document.get("error") and "error" not in (event.name, document.get("type")):
        return None
    found = read_error(document)
    return refusal(found) if found else uncertain("The provider's stream ended with an error.")


def finished_images(event: StreamEvent) -> int:
    """How many finished pictures an event carries. Seedream's ``completed`` has OpenAI's name, but carries none."""
    document = read_object(event.data)
    if document is None or "partial_image" in _kind(event, document):
        return 0
    shown = [node for node in event_images(document) if node.get("url") or node.get("b64_json")]
    return max(len(event.pictures), len(shown))


def event_images(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield where an event's pictures may be: in itself, as with OpenAI, and in ``data``, where it is a whole reply."""
    yield document
    items = document.get("data")
    yield from (item for item in (items if isinstance(items, list) else ()) if isinstance(item, dict))


def _kind(event: StreamEvent, document: Mapping[str, Any]) -> str:
    return event.name or str(document.get("type"))


def usage_of(event: StreamEvent) -> Mapping[str, Any] | None:
    """Return what an event says about tokens."""
    usage = (read_object(event.data) or {}).get("usage")
    return usage if isinstance(usage, Mapping) else None


def read_upload(reply: UpstreamReply) -> str:
    """Return the link in the reply of an upload API, at the top or under ``data``. Raises `UpstreamError`."""
    document = read_object(reply.body)
    if reply.status < 400 and document is not None:
        for node in (document.get("data"), document):
            if isinstance(node, Mapping) and isinstance(node.get("url"), str) and node["url"]:
                return str(node["url"])
    raise _failure(msgspec.structs.replace(reply, status=max(reply.status, 400)), reply.headers.get("x-request-id"))


def _failure(reply: UpstreamReply, request_id: str | None) -> UpstreamError:
    """Return the error of a reply with a status of 400 or more."""
    document = read_value(reply.body)
    text = "" if document is not None else reply.body[:_MOST_TEXT].decode("utf-8", "replace")
    return failure(reply.status, document, text=text, request_id=request_id)


def read_object(body: bytes) -> dict[str, Any] | None:
    """Return a JSON object, forgiving what does not belong in one; None: it is something else."""
    document = read_value(body)
    return document if isinstance(document, dict) else None


def _add_retry_after(error: UpstreamError, seconds: float | None) -> None:
    """The body's own word comes first."""
    if seconds is not None and error.retry_after is None:
        error.retry_after = seconds
        error.headers.append((b"retry-after", str(ceil(seconds)).encode()))


def absolute_link(link: str, origin: str) -> str:
    """A provider's link in full; one without a host is its own. Raises `UpstreamUncertain` where it is no http link."""
    try:
        url = urljoin(f"{origin}/", link) if origin else link
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname:
            return url
    except ValueError:
        pass
    raise uncertain("The provider's reply contains an invalid link.")


# Tasks


def _task_node(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Where the task's state stands: at the top, under ``data`` (New-API; a list of one at others), or ``output``."""
    if isinstance(document.get("status"), str):
        return document
    for name in ("data", "output"):
        node = document.get(name)
        if isinstance(node, list) and len(node) == 1:
            node = node[0]
        if isinstance(node, dict) and (isinstance(node.get("status"), str) or isinstance(node.get("task_status"), str)):
            return node
    return document


def _bucket(word: str) -> Bucket:
    """Return the kind of a task's state. Unknown states count as running; the deadline ends the polling."""
    return _BUCKETS.get(word.lower(), "pending")


def _task(node: Mapping[str, Any]) -> PendingTask | None:
    id_ = next((node[name] for name in ("task_id", "id", "request_id") if isinstance(node.get(name), str)), None)
    links = [node.get(name) for name in ("poll_url", "polling_url", "status_url")]  # TokenLab, BFL, fal
    if isinstance(urls := node.get("urls"), dict):  # Replicate
        links.append(urls.get("get"))
    poll_url = next((link for link in links if isinstance(link, str)), None)
    if not id_:
        return None
    return PendingTask(id=id_, poll_url=poll_url or None, progress=_percent(node.get("progress")))


def _percent(value: Any) -> float | None:
    if isinstance(value, str) and value.rstrip("%").isdecimal() and len(value) < 8:
        value = float(value.rstrip("%"))
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if 0 <= value <= 100 else None


def _ended(bucket: Bucket, document: Mapping[str, Any], word: str, request_id: str | None) -> UpstreamError:
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


# Pictures


def _items(node: Any) -> Iterator[Any]:
    """Yield everything that may be an image, in the provider's order."""
    if isinstance(node, list):
        for item in node:
            if isinstance(item, dict) and isinstance(item.get("url"), list):
                yield from item["url"]
            elif isinstance(item, dict) and isinstance(item.get("result"), dict):
                yield from _items(item["result"])
            else:
                yield item
    elif isinstance(node, dict):
        for name in ("data", "result", "images", "output", "results"):
            if node.get(name):
                value = node[name]
                found = [value] if name == "output" and isinstance(value, str) else list(_items(value))  # Replicate
                if found:
                    yield from found
                    return
        for name in ("result_url", "url", "image_url", "sample"):
            if isinstance(node.get(name), str):
                yield node[name]
                return
            if isinstance(node.get(name), list):
                yield from node[name]
                return
        if node.get("b64_json"):
            yield node


def _image(item: Any) -> ReplyImage | None:
    if isinstance(item, str):
        item = {"url": item}
    if not isinstance(item, dict) or item.get("respect_moderation") is False or item.get("error"):
        return None
    url, b64_json = item.get("url"), item.get("b64_json")
    fields = {
        name: value
        for name, value in item.items()
        if name not in ("url", "b64_json", "respect_moderation") and value is not None
    }
    if not b64_json and isinstance(url, str) and url.startswith("data:"):
        b64_json, url = (url if ";base64," in url[:128] else None), None
    if isinstance(b64_json, str) and (plain := _plain_base64(b64_json)):
        return ReplyImage(b64_json=plain, fields=fields)
    if isinstance(url, str) and url:
        return ReplyImage(url=url, fields=fields)
    return None


def _plain_base64(text: str) -> str:
    """Without the head of a data URL and without line breaks, which some providers leave in."""
    if text.startswith("data:"):
        text = text.partition(",")[2]
    is_plain = text.isascii() and not ("\n" in text or "\r" in text or " " in text or "\t" in text)
    return text if is_plain else "".join(text.split())


def _failed(item: Any) -> bool:
    return isinstance(item, dict) and (
        bool(item.get("error")) or item.get("is_image_safe") is False or item.get("respect_moderation") is False
    )


def _incomplete(failed: list[Any], images: list[ReplyImage], request_id: str | None) -> UpstreamError:
    """Return the error for missing images; it lists those that were made."""
    reason = next((found for item in failed if item.get("error") and (found := read_error(item))), None)
    if reason is None:
        error: UpstreamError = ModerationBlocked(
            "The provider withheld the image for its content.", request_id=request_id
        )
    else:
        error = refusal(reason, request_id=request_id)
    if not images:
        return error
    whole = UpstreamUncertain(
        f"{len(images)} of {len(images) + len(failed)} images were made, then: {error.message}",
        status=error.status,
        type=error.type,
        code=error.code,
        request_id=request_id,
    )
    whole.made = tuple(images)
    return whole


def _without_images(document: Mapping[str, Any], request_id: str | None) -> UpstreamError:
    if found := provider_error(document):
        return refusal(found, request_id=request_id)
    error = uncertain("The provider's reply contains no image.", request_id=request_id)
    error.code = "no_image"
    return error


def _blocked_word(document: Mapping[str, Any]) -> str | None:
    """Refusals that some providers hide in a 200 without an error."""
    feedback = document.get("promptFeedback")
    if isinstance(feedback, dict) and feedback.get("blockReason"):
        return str(feedback["blockReason"])
    candidates = document.get("candidates")
    for candidate in candidates if isinstance(candidates, list) else []:
        reason = candidate.get("finishReason") if isinstance(candidate, dict) else None
        if isinstance(reason, str) and reason in _GEMINI_BLOCKS:
            return reason
    return "CONTENT_FILTERED" if document.get("finish_reason") == "CONTENT_FILTERED" else None


def _created(document: Mapping[str, Any], now: int) -> int:
    for name in ("created", "created_at"):
        value = document.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 2**53:
            return int(value)
    return now
