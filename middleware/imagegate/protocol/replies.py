"""Reading providers' replies: pictures, a task to wait for, or an error. Pure.

The reader is tolerant: relays share a handful of dialects (OpenAI, TokenLab, ToAPIs, New-API) and mix them, so what
a document carries decides, not who sent it.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from math import ceil
from typing import Any, Final

import msgspec

from imagegate.errors import ModerationBlocked, UpstreamError
from imagegate.protocol.error_reader import provider_error, read_error
from imagegate.protocol.headers import seconds_asked
from imagegate.protocol.image_format import sniff
from imagegate.protocol.links import is_full
from imagegate.protocol.messages import ImageReply, Picture, ReplyImage
from imagegate.protocol.names import EITHER, LISTS, members_of, plain
from imagegate.protocol.parsers.charsets import in_utf8
from imagegate.protocol.parsers.lenient_json import read_object, read_printed, read_value, start_of_document
from imagegate.protocol.provider_errors import failure, leaves_open, uncertain
from imagegate.protocol.reply_errors import (
    FILTERED,
    NO_IMAGE,
    blocked_word,
    ended,
    has_failed,
    incomplete,
    redirected,
    without_images,
)
from imagegate.protocol.reply_pictures import TEXTS, has_pictures, pictures_in, plain_base64
from imagegate.protocol.reply_streams import documents_in_lines, documents_of, is_stream, reply_of_stream
from imagegate.protocol.reply_tasks import PendingTask, TaskNode, task_in_location, task_node
from imagegate.protocol.stray_pictures import picture_of_body, stray_pictures

WHOLE_BODY: Final = "imagegate-whole-body"
"""Token of a picture that is a reply's whole body."""
_PICTURE_MEMBERS: Final = frozenset(("created", *TEXTS, *EITHER))
"""Where pictures were found; in a reply of ours they are in ``data`` alone."""
_LONGEST_STATUS: Final = 65_536
"""Bytes of a reply that may be a state without an id; pictures are longer, and are not read twice."""
_HEAD: Final = 4096
"""Bytes of a body by which an image is recognized."""
_OPENAI_FIELDS: Final = frozenset(("usage", "size", "quality", "background", "output_format"))
_OPENAI_MEMBERS: Final = frozenset(("created", "data", *_OPENAI_FIELDS))
"""What OpenAI's replies have, which are read the short way."""
_OPENAI_ITEM: Final = frozenset(("b64_json", "url", "revised_prompt"))
_SHORTEST: Final = 8
_SCHEMES: Final = ("data:", "DATA:", "https", "HTTPS", "http:", "HTTP:")
_FEW: Final = 200
"""Brackets and commas of a document that cannot be too deep or have too many members."""
_MAY_PASS: Final = frozenset({408, 409, 425, 429})
"""Statuses below 500 after which a request may be sent again."""
_MOST_TEXT: Final = 16 * 1024
"""Bytes of an error's body, where it is no JSON."""
_TASK_REPLY_FIELDS: Final = ("usage", "size", "quality", "background", "output_format")
"""What is passed on of a finished task; the rest describes the task, not the pictures."""


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
    sound = _sound_object(reply.body) if reply.status < 300 else None
    if sound is not None and (plain_reply := _openai_reply(sound, now)) is not None:
        return plain_reply
    request_id = reply.headers.get("x-request-id")
    if reply.status < 300 and is_picture(reply):
        return _picture(reply, now)
    if 300 <= reply.status < 400:
        raise redirected(reply.status, request_id)
    if reply.status >= 400:
        error = _failure(reply, request_id)
        _add_retry_after(error, seconds_asked(reply.headers, now=now))
        raise error
    document = _document(reply.body, sound)
    if document is None:
        if not reply.body.strip() and (task := task_in_location(reply.headers)) is not None:
            return task
        if image := picture_of_body(reply.body):
            return ImageReply(images=(image,), created=now)
        raise uncertain(f"The provider answered {reply.status} with a body that is not JSON.", request_id=request_id)
    try:
        return read_document(document, now=now, request_id=request_id)
    except UpstreamError as error:
        task = task_in_location(reply.headers) if error.code == NO_IMAGE else None
        if task is None:
            raise
        return task


def _sound_object(body: bytes) -> dict[str, Any] | None:
    """Return a JSON object, neither deep nor large, as RFC 8259 has it; None: it is to be read with more care."""
    if body.count(b"{") + body.count(b"[") + body.count(b",") > _FEW:
        return None
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    return document if type(document) is dict else None


def _openai_reply(document: Mapping[str, Any], now: int) -> ImageReply | None:
    """Return the pictures of a document in OpenAI's own shape; None: it is in another one."""
    items = document.get("data")
    if type(items) is not list or not document.keys() <= _OPENAI_MEMBERS:
        return None
    images: list[ReplyImage] = []
    for item in items:
        if type(item) is not dict or not item.keys() <= _OPENAI_ITEM:
            return None
        encoded, url, prompt = item.get("b64_json"), item.get("url"), item.get("revised_prompt")
        fields = {} if prompt is None else {"revised_prompt": prompt}
        if type(encoded) is str and len(encoded) >= _SHORTEST and encoded[:5] not in _SCHEMES:
            images.append(ReplyImage(b64_json=plain_base64(encoded), fields=fields))
        elif encoded is None and type(url) is str and url.startswith(("https://", "http://")):
            images.append(ReplyImage(url=url, fields=fields))
        else:
            return None
    if not images:
        return None
    others = {name: document[name] for name in document if name in _OPENAI_FIELDS and document[name] is not None}
    return ImageReply(images=tuple(images), created=_created(document, now), fields=others)


def _document(body: bytes, sound: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return a reply's document; a stream that was not asked for is read as the reply that it amounts to.

    Args:
        sound: the body, where it is an object that needs no more care.
    """
    value: dict[str, Any] | list[Any] | None = read_value(body) if sound is None else sound
    if value is None:
        value = read_printed(body)
    if value == []:
        return None
    if isinstance(value, list):
        only = value[0] if len(value) == 1 else None
        return only if isinstance(only, dict) and not has_pictures(value) else {"data": value}
    if value is None and is_stream(body[:_HEAD]):
        return reply_of_stream(body)
    if isinstance(value, dict) and "data" not in value and b"\n{" in body and (lines := documents_in_lines(body)):
        return lines
    if value is None and (start := start_of_document(body[:_HEAD])):
        value = read_object(body[start:])
        return value if value and any(image is not None for _, image in pictures_in(value)) else None
    return value


def is_picture(reply: UpstreamReply) -> bool:
    """Return whether a reply's whole body is a picture, whatever it is said to be."""
    if reply.body[:1] == b"{":
        return False
    return WHOLE_BODY in reply.pictures or sniff(reply.body[:_HEAD]) is not None


def may_be_read(reply: UpstreamReply) -> bool:
    """Return whether a body is of a kind that replies have; a page for people is not."""
    beginning = reply.body[:_HEAD].lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    return beginning in (b"{", b"[") or is_picture(reply) or is_stream(reply.body[:_HEAD])


def read_picture(reply: UpstreamReply, *, now: int) -> ImageReply | None:
    """Return the picture where it is the whole body of the reply; None: it is not. Raises `ModerationBlocked`."""
    return _picture(reply, now) if is_picture(reply) else None


def _picture(reply: UpstreamReply, now: int) -> ImageReply:
    if reply.headers.get("finish-reason", "").upper() == FILTERED:  # Stability, Fireworks: a picture that is blurred
        raise ModerationBlocked(f"The provider blocked the request: {FILTERED}")
    encoded = WHOLE_BODY if WHOLE_BODY in reply.pictures else b64encode(reply.body).decode()
    return ImageReply(images=(ReplyImage(b64_json=encoded),), created=now)


def is_ambiguous(status: int, body: bytes) -> bool:
    """Return whether a reply leaves open what was made, whatever else an adapter reads in it."""
    document = read_value(body) if status >= 400 else None
    return leaves_open(status, is_explained=status < 400 or document is not None) or _shows_work(status, document)


def _shows_work(status: int, document: object) -> bool:
    """Return whether the document of an error after which a request is sent again has pictures, or a task at work."""
    if not isinstance(document, dict) or (status < 500 and status not in _MAY_PASS):
        return False
    described = task_node(document)
    images = [image for _, image in pictures_in(document) if image is not None and not image.written]
    if described.bucket == "done":
        return bool(images)
    said = read_error(document)
    if said is not None and said.message != described.word:  # a sentence, beside whatever state
        return False
    if described.word is not None:
        return described.is_known_to_wait and described.task() is not None
    if any(image.b64_json for image in images) or (images and isinstance(document.get("data"), list)):
        return True
    return described.task() is not None and _still_waits(described, document)


def read_document(
    document: Mapping[str, Any], *, now: int, request_id: str | None = None, is_task: bool = False
) -> ImageReply | PendingTask:
    """Return the same for a document that came with a status below 400. Raises `UpstreamError`.

    Args:
        is_task: the provider's words for states are known, so that any other one is of a task that goes on, whatever
            pictures it shows. A relay's other word beside pictures is no such thing.
    """
    if (plain_reply := _openai_reply(document, now)) is not None:
        return plain_reply
    described = task_node(document)
    word, bucket, task = described.word, described.bucket, described.task()
    if bucket in ("failed", "cancelled", "moderated", "lost"):
        error = ended(bucket, document, str(word), request_id)
        error.ends_task = bucket != "lost"  # its outcome is unknown
        raise error
    if task is not None and (described.is_known_to_wait or (is_task and bucket == "pending")):
        return task  # whatever links it carries are not the picture yet
    if blocked := blocked_word(document):
        raise ModerationBlocked(f"The provider blocked the request: {blocked[:128]}", request_id=request_id)
    read = pictures_in(document)
    images = [image for _, image in read if image is not None]
    if all(image.written for image in images) and task is not None and _still_waits(described, document):
        return task
    failed = [item for item, image in read if image is None and has_failed(item)]
    if failed:
        error = incomplete(failed, images, request_id)
        error.ends_task = bucket == "done"
        raise error
    if not images:
        images = _misplaced(described) or (stray_pictures(document) if provider_error(document) is None else [])
    if not images:
        error = without_images(document, request_id, is_over=bucket == "done")
        error.ends_task = bucket == "done" and error.outcome == "rejected"  # fal: COMPLETED, with an error
        raise error
    fields = (
        {name: document[name] for name in _TASK_REPLY_FIELDS if document.get(name) is not None}
        if word is not None
        else {name: value for name, value in document.items() if value is not None and not _held_pictures(name, value)}
    )
    return ImageReply(images=tuple(images), created=_created(document, now), fields=fields)


def read_progress(task: PendingTask, reply: UpstreamReply) -> PendingTask | None:
    """Return the task where a reply to a question about it says that it goes on, without its id.

    fal's status, for one, has a state and no more. None: the reply is to be read like any other.
    """
    small = reply.status < 400 and len(reply.body) <= _LONGEST_STATUS
    document = read_object(reply.body) if small else None
    described = task_node(document) if document is not None else None
    if document is None or described is None or described.bucket != "pending" or described.task() is not None:
        return None
    if not described.is_known_to_wait and (
        blocked_word(document) or provider_error(document) or any(image for _, image in pictures_in(document))
    ):
        return None
    return msgspec.structs.replace(task, progress=described.progress)


def named_task(reply: UpstreamReply) -> PendingTask | None:
    """Return the task that a small reply names by a member that only tasks have, whatever it says of its state."""
    small = reply.status < 300 and len(reply.body) <= _LONGEST_STATUS
    document = read_object(reply.body) if small else None
    described = task_node(document) if document is not None else None
    return described.task() if described is not None and described.names_task else None


def _still_waits(described: TaskNode, document: Mapping[str, Any]) -> bool:
    """Return whether a reply without pictures is that of a task: BFL and fal say no more than where to ask."""
    if described.bucket is not None:
        return described.bucket == "pending"
    task = described.task()
    is_task = described.names_task or (task is not None and task.poll_url is not None)
    return is_task and not provider_error(document)


def _held_pictures(name: str, value: Any) -> bool:
    known = plain(name)
    return known in _PICTURE_MEMBERS or (known in LISTS and isinstance(value, (dict, list)))


def images_of(document: Mapping[str, Any] | None, *, now: int) -> ImageReply | None:
    """Return what an application answered as a reply; None: it carries no images, and is passed on as it is."""
    if document is None or "data" not in document:
        return None
    try:
        reply = read_document(document, now=now)
    except UpstreamError:
        return None
    return reply if isinstance(reply, ImageReply) else None


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
    body = in_utf8(reply.body, reply.headers.get("content-type", ""))
    document = read_value(body)
    if document is None:
        document = read_printed(body)
    if document is None and is_stream(body[:_HEAD]):
        document = documents_of(body)
    if _shows_work(reply.status, document):
        return uncertain(f"The provider answered {reply.status}, and has accepted the request.", request_id=request_id)
    text = "" if document is not None else body[:_MOST_TEXT].decode("utf-8", "replace")
    return failure(reply.status, document, text=text, request_id=request_id)


def _add_retry_after(error: UpstreamError, seconds: float | None) -> None:
    """Add what the header says, unless the body says it."""
    if seconds is not None and error.retry_after is None:
        error.retry_after = seconds
        error.headers.append((b"retry-after", str(ceil(seconds)).encode()))


def _misplaced(described: TaskNode) -> list[ReplyImage]:
    """Return the result of a task that is done where versions of New-API have it: in ``fail_reason``."""
    link = members_of(described.node).get("failreason") if described.bucket == "done" else None
    return [ReplyImage(url=link)] if isinstance(link, str) and is_full(link) else []


def _created(document: Mapping[str, Any], now: int) -> int:
    for name in ("created", "created_at"):
        value = document.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 2**53:
            return int(value)
    return now
