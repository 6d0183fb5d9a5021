"""What was asked, sent and answered, word for word: kept only where the console or the log is to show it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from imagegate.adapter import FilePart, TextPart, UpstreamRequest
from imagegate.exchange import FileID, ImageRequest, Link, Reference

SMALL_ANSWER: Final = 64 * 1024
"""Bytes: an answer with links, or an error."""
_LONGEST_TEXT: Final = 4000
"""Characters of one value."""
_LONGEST_LIST: Final = 64


class Capture:
    """The words of one exchange.

    Args:
        most: bytes of the answer that are kept; a longer one is not kept at all.
    """

    def __init__(self, *, most: int = SMALL_ANSWER) -> None:
        self.prompt = ""
        self.asked: dict[str, Any] = {}
        """Members of the request as the client wrote them, without prompt; long values are cut."""
        self.sent: list[dict[str, Any]] = []
        """For each POST: ``upstream``, ``path`` and ``body``."""
        self._most = most
        self._answer: bytearray | None = bytearray()

    def ask(self, request: ImageRequest) -> None:
        """Notes the client's request."""
        fields = {name: value for name, value in request.fields.items() if name != "prompt"}
        self.prompt = shown(request.fields.get("prompt", ""))
        self.asked = shown(fields)
        if request.images:
            images = [_reference(image) for image in request.images]
            self.asked["image"] = images if len(images) > 1 else images[0]
        if request.mask is not None:
            self.asked["mask"] = _reference(request.mask)

    def send(self, upstream: str, request: UpstreamRequest) -> None:
        """Notes what a provider is sent, but for headers: those hold keys."""
        body: Any = {}
        if request.parts:
            body = _members(request.parts)
        elif request.body:
            body = shown(msgspec.json.decode(request.body))
        if len(self.sent) < _LONGEST_LIST:
            self.sent.append({"upstream": upstream, "path": request.path, "body": body})

    def answer(self, chunk: bytes) -> None:
        """Notes a piece of the answer's body."""
        if self._answer is None:
            return
        if len(self._answer) + len(chunk) > self._most:
            self._answer = None
        else:
            self._answer += chunk

    def forget_answer(self) -> None:
        """For those who hold on to a record: its answer may be large."""
        self._answer = None

    @property
    def size(self) -> int:
        """Bytes of the answer that are held."""
        return len(self._answer or b"")

    def documents(self) -> list[Mapping[str, Any]]:
        """The JSON objects of the answer: its body, or the data of its events. Empty where it was not kept."""
        body = bytes(self._answer or b"")
        if body.lstrip()[:1] == b"{":
            lines = [body]
        else:
            lines = [line[5:] for line in body.splitlines() if line.startswith(b"data:")]
        return list(_objects(lines))

    def pictures(self) -> list[Mapping[str, Any]]:
        """Members ``url`` or ``b64_json`` of each picture that was delivered; partial ones of a stream are none."""
        found: list[Mapping[str, Any]] = []
        for document in self.documents():
            data = document.get("data")
            candidates = data if isinstance(data, list) else [document]
            if "partial_image_index" not in document:
                found += [item for item in candidates if isinstance(item, Mapping) and _has_picture(item)]
        return found

    def links(self) -> list[str]:
        """Of pictures that were delivered."""
        return [picture["url"] for picture in self.pictures() if isinstance(picture.get("url"), str)]


def _objects(lines: list[bytes]) -> Iterator[Mapping[str, Any]]:
    for line in lines:
        try:
            document = msgspec.json.decode(line)
        except msgspec.DecodeError:
            continue
        if isinstance(document, dict):
            yield document


def _has_picture(item: Mapping[str, Any]) -> bool:
    return isinstance(item.get("url"), str) or isinstance(item.get("b64_json"), str)


def shown(value: Any) -> Any:
    """A JSON value for people: pictures in it are told by their length, long texts and lists are cut."""
    if isinstance(value, str):
        if len(value) > 256 and (value.startswith("data:") or (value.isascii() and " " not in value)):
            return f"{value[:32]}... ({len(value):,} characters)"
        return value if len(value) <= _LONGEST_TEXT else f"{value[:_LONGEST_TEXT]}... ({len(value):,} characters)"
    if isinstance(value, Mapping):
        return {str(name)[:128]: shown(item) for name, item in list(value.items())[:_LONGEST_LIST]}
    if isinstance(value, (list, tuple)):
        return [shown(item) for item in value[:_LONGEST_LIST]]
    return value


def _members(parts: tuple[TextPart | FilePart, ...]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for part in parts:
        value = shown(part.value) if isinstance(part, TextPart) else _file(part.upload.filename, part.upload.size)
        before = members.get(part.name)
        members[part.name] = value if before is None else [*(before if isinstance(before, list) else [before]), value]
    return members


def _reference(reference: Reference) -> str:
    if isinstance(reference, Link):
        return str(shown(reference.url))
    return reference.id if isinstance(reference, FileID) else _file(reference.filename, reference.size)


def _file(name: str, size: int) -> str:
    return f"{name[:128]} ({size:,} bytes)"
