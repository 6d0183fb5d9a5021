"""Events of providers' streams: what each carries, in any dialect, and what a whole stream amounts to. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

import msgspec

from imagegate.errors import UpstreamError
from imagegate.protocol.error_reader import read_error
from imagegate.protocol.messages import ReplyImage, StreamEvent
from imagegate.protocol.names import LISTS, plain
from imagegate.protocol.parsers.lenient_json import read_object
from imagegate.protocol.parsers.sse import EventEnd, EventReader, EventText, SSEError
from imagegate.protocol.provider_errors import refusal, uncertain
from imagegate.protocol.reply_pictures import TEXTS, pictures_in
from imagegate.protocol.usage import openai_usage

_BEGINNING: Final = re.compile(rb"(?:\xef\xbb\xbf)?[\r\n]*(?:(?:event|data(?!:image/)|id|retry):|:)")
_OWN_KINDS: Final = ("image_generation.", "image_edit.")
"""What the names of events begin with that OpenAI's clients know."""
_ONE_FAILED: Final = "partial_failed"
_OF_OTHERS: Final = ("partial_succeeded", _ONE_FAILED, "text_chunk")
"""What events end with whose names begin as OpenAI's: of a group, one image is there, or will not be (Seedream); words
between the images (OpenRouter)."""
_WITH_TIMES: Final = (".partial_image", ".completed")
"""What events end with of which OpenAI's all have ``created_at``; OpenRouter's have ``created``."""
_OF_THE_EVENT: Final = frozenset(("type", "createdat", "created", "sequencenumber", "partialimageindex", "index"))


def is_stream(head: bytes) -> bool:
    """Return whether a body that begins so is a stream of events, whatever it is said to be."""
    return _BEGINNING.match(head) is not None


def event_error(event: StreamEvent) -> UpstreamError | None:
    """Return the error that ends a streamed reply; failures of single images of a group (Seedream) do not end it."""
    document = read_object(event.data)
    if document is None or _kind(event, document).endswith(_ONE_FAILED):
        return None
    if not document.get("error") and "error" not in (event.name, document.get("type")):
        return None
    found = read_error(document)
    return refusal(found) if found else uncertain("The provider's stream ended with an error.")


def image_failure(event: StreamEvent) -> UpstreamError | None:
    """Return why one image of several was not made; None: the event says no such thing."""
    document = read_object(event.data)
    if document is None or not _kind(event, document).endswith(_ONE_FAILED):
        return None
    found = read_error(document)
    return refusal(found) if found else uncertain("The provider did not make the image.")


def is_last(event: StreamEvent) -> bool:
    """Return whether an event says that the whole stream is over, and carries no picture."""
    document = read_object(event.data)
    if event.is_end_mark or document is None:
        return event.is_end_mark
    return _kind(event, document).endswith(".completed") and not finished_images(event)


def finished_images(event: StreamEvent) -> int:
    """Return how many finished pictures an event carries. Seedream's ``completed`` has OpenAI's name and no picture."""
    return len(pictures_of(event)) if not is_own(event) else _finished_own(event)


def _finished_own(event: StreamEvent) -> int:
    document = read_object(event.data)
    if document is None or is_partial(event, document):
        return 0
    shown = [node for node in event_images(document) if node.get("url") or node.get("b64_json")]
    return max(len(event.pictures), len(shown))


def event_images(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield where an event's pictures may be: in itself, as with OpenAI, and in ``data``, where it is a whole reply."""
    yield document
    items = document.get("data")
    yield from (item for item in (items if isinstance(items, list) else ()) if isinstance(item, dict))


def is_own(event: StreamEvent) -> bool:
    """Return whether an event is one that OpenAI's clients know, or has a picture in JSON that cannot be read."""
    document = read_object(event.data)
    if document is None:
        return bool(event.pictures)
    kind = _kind(event, document)
    if not kind.startswith(_OWN_KINDS) or "data" in document or kind.endswith(_OF_OTHERS):
        return False
    if "created_at" not in document and kind.endswith(_WITH_TIMES):
        return False
    return not kind.endswith(".completed") or _finished_own(event) > 0


def pictures_of(event: StreamEvent) -> list[ReplyImage]:
    """Return the finished pictures of an event in any dialect."""
    document = read_object(event.data)
    if document is None or is_partial(event, document):
        return []
    images = [image for _, image in pictures_in(document) if image is not None]
    kind = _kind(event, document)
    may_be_relative = isinstance(document.get("data"), list) or (
        kind.startswith(_OWN_KINDS) and kind.endswith(".completed")
    )
    return images if may_be_relative or any(not image.written for image in images) else []


def fields_of(event: StreamEvent) -> dict[str, Any]:
    """Return what an event says beside its pictures and of itself."""
    document = read_object(event.data) or {}
    fields = {
        name: value
        for name, value in document.items()
        if value is not None and plain(name) not in _OF_THE_EVENT and plain(name) not in (*TEXTS, *LISTS)
    }
    if isinstance(usage := fields.get("usage"), Mapping):
        fields["usage"] = openai_usage(usage)
    return fields


def created_at(event: StreamEvent, *, now: int) -> int:
    """Return when an event says that it was made; `now` where it does not say."""
    document = read_object(event.data) or {}
    said = next((value for name in ("created_at", "created") if type(value := document.get(name)) is int), now)
    return said if 0 <= said < 2**53 else now


def usage_of(event: StreamEvent) -> Mapping[str, Any] | None:
    """Return what an event says about tokens."""
    usage = (read_object(event.data) or {}).get("usage")
    return usage if isinstance(usage, Mapping) else None


def _kind(event: StreamEvent, document: Mapping[str, Any]) -> str:
    return event.name or str(document.get("type"))


def is_partial(event: StreamEvent, document: Mapping[str, Any]) -> bool:
    """Return whether an event is a preview."""
    return "partial_image" in _kind(event, document) or "partial_image_index" in document


class StreamReply:
    """Assembles an unrequested stream into the equivalent reply."""

    def __init__(self) -> None:
        self.images: list[ReplyImage] = []
        """So far; tokens may stand for pictures."""
        self._failures: list[UpstreamError] = []
        """Of images that were not made."""
        self._is_over = False
        self._kinds: set[str] = set()
        self._fields: dict[str, Any] = {}

    def add(self, event: StreamEvent) -> None:
        """Take an event. Raises `UpstreamError` where it is the provider's error, and there is no picture yet."""
        self._is_over = self._is_over or is_last(event)
        if event.is_end_mark:
            return
        if error := event_error(event):
            if not self.images:
                raise error
            self._fields["error"] = _described(error)  # the picture is paid for
            return
        if failure := image_failure(event):
            self._failures.append(failure)
            return
        images, document = pictures_of(event), read_object(event.data) or {}
        self._fields.update(fields_of(event))
        if not images:
            return
        kind = _kind(event, document)
        if self._kinds and kind not in self._kinds and len(images) >= len(self.images):
            self.images.clear()  # the last event has all of them once more
        self._kinds.add(kind)
        self.images += images

    def document(self) -> dict[str, Any]:
        """Return it in OpenAI's shape. Raises `UpstreamUncertain` where no picture came, nor a reason why."""
        if not self.images and not (self._failures and self._is_over):
            raise uncertain("The provider's stream broke off before it had a picture.")
        data = [{"url": image.url} if image.url else {"b64_json": image.b64_json} for image in self.images]
        return {**self._fields, "data": [*data, *({"error": _described(error)} for error in self._failures)]}


def _described(error: UpstreamError) -> dict[str, Any]:
    return {"message": error.message, "type": error.type, "code": error.code, "param": error.param}


def reply_of_stream(body: bytes) -> dict[str, Any]:
    """Return a whole stream as a reply. Raises `UpstreamError`."""
    reply = StreamReply()
    for event in _events(body):
        reply.add(event)
    return reply.document()


def documents_in_lines(body: bytes) -> dict[str, Any] | None:
    """Return what a body with one JSON object in each line amounts to; None: it has no such lines.

    Raises `UpstreamError` where a line is the provider's error.
    """
    found = [document for line in body.splitlines() if line.strip() for document in [read_object(line)]]
    if len(found) < 2 or None in found:
        return None
    reply = StreamReply()
    for document in found:
        reply.add(StreamEvent(name="", data=msgspec.json.encode(document)))
    return reply.document() if reply.images else found[-1]


def documents_of(body: bytes) -> list[dict[str, Any]]:
    """Return the JSON objects of a stream, as far as it can be read."""
    found: list[dict[str, Any]] = []
    with suppress(UpstreamError):
        found.extend(document for event in _events(body) if (document := read_object(event.data)) is not None)
    return found


def _events(body: bytes) -> Iterator[StreamEvent]:
    reader, text = EventReader(), bytearray()
    try:
        for tokens in (reader.feed(body), reader.finish()):
            for token in tokens:
                if isinstance(token, EventText):
                    text += token.data
                elif isinstance(token, EventEnd):
                    yield StreamEvent(name=token.name, data=bytes(text), lines=token.lines)
                    text.clear()
    except SSEError as error:
        raise uncertain(f"The provider's reply is invalid. {error}") from error
