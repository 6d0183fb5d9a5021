"""What was asked, sent and answered, word for word: kept only where the console or the log is to show it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from imagegate.adapter import FilePart, InlineFile, TextPart, UpstreamRequest
from imagegate.protocol.messages import FileID, ImageRequest, Link, Reference
from imagegate.spool.memory import Share

SMALL_ANSWER: Final = 64 * 1024
"""Bytes: an answer with links, or an error."""
_SMALL_BODY: Final = 8 * 1024
"""Bytes of a request that is put by as it is."""
_LONGEST_TEXT: Final = 4000
"""Characters of one value."""
_LONGEST_LIST: Final = 64
_QUOTED: Final = (('"', "%22"), ("\r", "%0D"), ("\n", "%0A"))
"""Characters of a file's name, and how forms have to write them (WHATWG, multipart/form-data encoding)."""
_MOST_LINES: Final = 1024
"""Of a stream that are looked at; each event of ours has four."""


class Capture:
    """The recorded bodies of one exchange. Small ones are kept as bytes and parsed when they are shown.

    Args:
        most: bytes of the answer that are kept; a longer one is not kept at all.
        room: shared by all answers in flight; where it is used up, an answer is not kept either. None: not counted.
    """

    def __init__(self, *, most: int = SMALL_ANSWER, room: Share | None = None) -> None:
        self._fields: Mapping[str, Any] = {}
        self._files: dict[str, Any] = {}
        self._sent: list[tuple[str, str, Any]] = []
        self._most = most
        self._room = room
        self._answer: list[bytes] = []
        self.size = 0
        """Bytes of the answer that are held."""

    def ask(self, request: ImageRequest) -> None:
        """Note the client's request."""
        is_small = request.body is not None and len(request.body) <= _SMALL_BODY
        self._fields = request.fields if is_small else shown(request.fields)
        if request.images:
            images = [_reference(image) for image in request.images]
            self._files["image"] = images if len(images) > 1 else images[0]
        if request.mask is not None:
            self._files["mask"] = _reference(request.mask)

    @property
    def prompt(self) -> str:
        """Of the request; what is long is cut."""
        prompt: str = shown(self._fields.get("prompt", ""))
        return prompt

    @property
    def asked(self) -> dict[str, Any]:
        """Members of the request as the client wrote them, without prompt; long values are cut."""
        return {**{name: shown(value) for name, value in self._fields.items() if name != "prompt"}, **self._files}

    def send(self, upstream: str, request: UpstreamRequest) -> None:
        """Note what a provider is sent, but for headers: those hold keys."""
        if len(self._sent) >= _LONGEST_LIST:
            return
        body: Any = {}
        if request.parts:
            body = _members(request.parts)
        elif request.document is not None:
            body = shown(request.document)
        elif request.body:
            body = request.body if len(request.body) <= _SMALL_BODY else shown(msgspec.json.decode(request.body))
        self._sent.append((upstream, request.path, body))

    @property
    def sent(self) -> list[dict[str, Any]]:
        """For each POST: ``upstream``, ``path`` and ``body``."""
        return [
            {
                "upstream": upstream,
                "path": path,
                "body": shown(msgspec.json.decode(body)) if isinstance(body, bytes) else body,
            }
            for upstream, path, body in self._sent
        ]

    def answer(self, chunk: bytes) -> None:
        """Note a piece of the answer's body."""
        is_short = self.size + len(chunk) <= self._most
        if not is_short or not (self._room is None or self._room.try_take(len(chunk))):
            self.forget_answer()
            self._most = 0
        else:
            self.size += len(chunk)
            self._answer.append(chunk)

    def answered(self) -> bytes:
        """Return the answer's body; empty where it was not kept."""
        return b"".join(self._answer)

    def forget_answer(self) -> None:
        """Forget the answer, which may be large, where a record is held on to."""
        self._answer.clear()
        if self._room is not None:
            self._room.give_back(self.size)
        self.size = 0

    def links(self) -> list[str]:
        """Return the links of pictures that were delivered."""
        found = pictures_in(documents_of(self.answered()))
        return [picture["url"] for picture in found if isinstance(picture.get("url"), str)]


def documents_of(answer: bytes) -> list[Mapping[str, Any]]:
    """Return the JSON objects of an answer: its body, or the data of its events."""
    if answer.lstrip()[:1] == b"{":
        lines = [answer]
    else:
        lines = [line[5:] for line in answer.split(b"\n", _MOST_LINES)[:_MOST_LINES] if line.startswith(b"data:")]
    return list(_objects(lines))


def pictures_in(documents: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Members ``url`` or ``b64_json`` of each picture that was delivered; partial ones of a stream are none."""
    found: list[Mapping[str, Any]] = []
    for document in documents:
        data = document.get("data")
        candidates = data if isinstance(data, list) else [document]
        if "partial_image_index" not in document:
            found += [item for item in candidates if isinstance(item, Mapping) and _has_picture(item)]
    return found


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
    """Return a JSON value for display: images replaced by their length, long strings and lists cut."""
    if isinstance(value, str):
        if len(value) > 256 and (value.startswith("data:") or (value.isascii() and " " not in value)):
            return f"{value[:32]}... ({len(value):,} characters)"
        return value if len(value) <= _LONGEST_TEXT else f"{value[:_LONGEST_TEXT]}... ({len(value):,} characters)"
    if isinstance(value, InlineFile):
        return _file(value.upload.filename, value.upload.size)
    if isinstance(value, Mapping):
        return {str(name)[:128]: shown(item) for name, item in list(value.items())[:_LONGEST_LIST]}
    if isinstance(value, (list, tuple)):
        return [shown(item) for item in value[:_LONGEST_LIST]]
    return value


def _members(parts: tuple[TextPart | FilePart, ...]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for part in parts:
        value = shown(part.value) if isinstance(part, TextPart) else _file(part.filename, part.upload.size)
        before = members.get(part.name)
        members[part.name] = value if before is None else [*(before if isinstance(before, list) else [before]), value]
    return members


def _reference(reference: Reference) -> str:
    if isinstance(reference, Link):
        return str(shown(reference.url))
    return reference.id if isinstance(reference, FileID) else _file(reference.filename, reference.size)


def _file(name: str, size: int) -> str:
    for character, quoted in _QUOTED:
        name = name.replace(quoted, character)
    return f"{name[:128]} ({size:,} bytes)"
