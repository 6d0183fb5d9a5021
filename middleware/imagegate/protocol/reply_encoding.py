"""Encodes replies and events as JSON, with images that are encoded while they are sent."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from imagegate.contracts.contract import Operation
from imagegate.protocol.messages import FileRef, ImageReply, Picture, ReplyImage, StreamEvent
from imagegate.protocol.parsers.lenient_json import read_object
from imagegate.protocol.parsers.sse import EVENT_END, event_data, event_head
from imagegate.protocol.reply_streams import created_at, is_partial

Part = bytes | FileRef
"""Bytes as they are, or a picture to be sent as base64."""

_KINDS: Mapping[Operation, str] = {
    "generations": "image_generation",
    "edits": "image_edit",
    "variations": "image_edit",
}
_EVENT_FIELDS = ("background", "output_format", "quality", "size")
"""What OpenAI repeats in each event of a stream."""


def reply_parts(reply: ImageReply) -> Sequence[Part]:
    """Return a reply as OpenAI's JSON."""
    if all([image.picture is None for image in reply.images]):  # noqa: C419 - quicker
        return [reply.encode()]
    tokens = Tokens()
    data = [_image(image, tokens) for image in reply.images]
    document = msgspec.json.encode({"created": reply.created, **reply.fields, "data": data})
    return list(split(document, tokens.pictures))


def event_parts(event: StreamEvent) -> Sequence[Part]:
    """Return an event of a stream."""
    head = event_head(event.name, event.lines)
    return [head, *split(event_data(event.data), event.pictures), EVENT_END]


def completed_events(reply: ImageReply, operation: Operation) -> Iterator[StreamEvent]:
    """Yield a complete reply as the final events of a stream: one for each image.

    The last one has what is said about all of them: ``usage``, and members that OpenAI does not know.
    """
    kind = f"{_KINDS[operation]}.completed"
    for place, image in enumerate(reply.images):
        tokens = Tokens()
        facts = {name: reply.fields[name] for name in _EVENT_FIELDS if name in reply.fields}
        if image.facts is not None:
            facts.setdefault("output_format", image.facts.kind.name)
            if image.facts.width:
                facts.setdefault("size", f"{image.facts.width}x{image.facts.height}")
        document: dict[str, Any] = {"type": kind, "created_at": reply.created, **facts, **_image(image, tokens)}
        if place == len(reply.images) - 1:
            document |= {name: value for name, value in reply.fields.items() if name not in _EVENT_FIELDS}
        document["type"] = kind
        yield StreamEvent(name=kind, data=msgspec.json.encode(document), pictures=tokens.pictures)


def as_partial(event: StreamEvent, operation: Operation, *, now: int) -> StreamEvent | None:
    """Return a preview in another dialect as OpenAI's; None: it is none."""
    document = read_object(event.data)
    if document is None or not is_partial(event, document):
        return None
    kind = f"{_KINDS[operation]}.partial_image"
    document |= {"type": kind, "created_at": created_at(event, now=now)}
    return msgspec.structs.replace(event, name=kind, data=msgspec.json.encode(document))


def length_of(parts: Sequence[Part]) -> int:
    """Return the length in bytes."""
    return sum(len(part) if isinstance(part, bytes) else -(-part.size // 3) * 4 for part in parts)


class Tokens:
    """Unique placeholders for images while a document is encoded."""

    def __init__(self) -> None:
        self._nonce = ""
        self.pictures: dict[str, Picture] = {}

    def token(self, picture: Picture) -> str:
        self._nonce = self._nonce or secrets.token_hex(8)
        token = f"imagegate-{self._nonce}-{len(self.pictures)}"
        self.pictures[token] = picture
        return token


def _image(image: ReplyImage, tokens: Tokens) -> dict[str, Any]:
    if image.url is not None:
        return {"url": image.url, **image.fields}
    b64_json = image.b64_json if image.picture is None else tokens.token(image.picture)
    return {"b64_json": b64_json, **image.fields}


def split(document: bytes, pictures: Mapping[str, Picture]) -> Iterator[Part]:
    """Yield a document with files in the places of their tokens."""
    if not pictures:
        yield document
        return
    tokens = {token.encode(): picture for token, picture in pictures.items()}
    longest_first = sorted(tokens, key=len, reverse=True)  # one token may be the beginning of another
    for piece in re.split(b"(" + b"|".join(map(re.escape, longest_first)) + b")", document):
        picture = tokens.get(piece)
        if picture is None:
            yield piece
        elif isinstance(picture, FileRef):
            yield picture
        else:
            raise TypeError("a stored picture is sent as a link")
