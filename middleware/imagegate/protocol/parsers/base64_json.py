"""Extracts base64 images from a JSON document while the document arrives.

A push parser without I/O: it takes the document in pieces cut anywhere and returns decoded images in pieces, and at
the end the *rest*: the same document with a short token instead of each image, for an ordinary JSON parser. It follows
strings and nesting only as far as needed to know the path of a member; the parser of the rest validates the JSON.
A megabyte of base64 costs about a millisecond, and no memory.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import msgspec

from imagegate.protocol.image_format import holds_picture
from imagegate.protocol.names import BASE64_MEMBERS, EITHER, LINK_MEMBERS, may_hold_result, plain
from imagegate.protocol.parsers.base64_decoder import Base64Decoder, ScanError

OPENAI_MEMBERS: Final = ("b64_json",)
"""Members in which OpenAI and its relays put images."""
TOKEN_MARK: Final = "imagegate-"  # noqa: S105 - of a picture
"""Prefix of tokens."""
MAX_REST: Final = 4 * 1024**2
"""Maximum bytes of a document without its images."""
_MAX_DEPTH: Final = 512
_MAX_KEY: Final = 256
_HEAD: Final = 512
"""Bytes of a string from which its kind is decided; the head of a data URL is shorter."""
_MAX_SIGNS: Final = 200_000
"""Maximum brackets, braces and strings of a document; a reply of ten images has a hundred."""
_MAX_PICTURES: Final = 256
_STEP: Final = 2048
"""Brackets, braces and strings (about two milliseconds) in one step of `Base64Scanner.steps`."""
_SPACES: Final = b" \t\r\n"
_SHORTEST: Final = 64
_USUAL: Final = frozenset(
    (*BASE64_MEMBERS, *LINK_MEMBERS, *EITHER, "images", "imageurls", "urls", "outputs", "results")
)

# Commas and colons are examined only before a string, so that dense input is not scanned byte by byte.
_STRUCTURE = re.compile(rb'[{}\[\]"]')
_ESCAPED = re.compile(rb'[^"\\]*(?:\\(?:u[0-9a-fA-F]{4}|[^u])[^"\\]*)*', re.DOTALL)
_CUT_ESCAPE = re.compile(rb"\\(?:u[0-9a-fA-F]{0,3})?")
_ESCAPE_IN_BASE64 = re.compile(rb"\\[^/]")


_UNUSUAL: Final = (b"-", b"_", b" ", b"\n")
"""Of the other alphabet, or line breaks; `find` is ten times as fast for each as a pattern is for all."""


class PictureStart(msgspec.Struct, frozen=True):
    """An image begins, at a path such as ``data[].b64_json``; `token` replaces it in the rest."""

    token: str
    path: str


class PictureData(msgspec.Struct, frozen=True):
    """Decoded bytes of the current image."""

    data: bytes


class PictureEnd(msgspec.Struct, frozen=True):
    """The current image is complete."""


Event = PictureStart | PictureData | PictureEnd


class Base64Scanner:
    """Extract the images of a JSON document.

    Args:
        members: ends of the paths of members that hold base64: ``b64_json``, ``data[].b64_json``, ``inlineData.data``.
        usual: also search under all names but those of requests and previews, where a string counts as an image if it
            is a data URL, or base64 that begins as an image does.
        decode: maximum bytes to decode of each image, for documents that are relayed unchanged; None: all.
        max_rest: maximum bytes of the document without its images.
        max_signs: maximum brackets, braces and strings of the document.
    """

    def __init__(
        self,
        members: Sequence[str] = OPENAI_MEMBERS,
        *,
        usual: bool = True,
        decode: int | None = None,
        max_rest: int = MAX_REST,
        max_signs: int = _MAX_SIGNS,
    ) -> None:
        self._members = tuple(members)
        self._usual = usual
        self._last_keys = {member.rpartition(".")[2] for member in members}
        self._most = decode
        self._max_rest = max_rest
        self._max_signs = max_signs
        self._signs = 0
        self._nonce = secrets.token_hex(8)
        self._count = 0
        self.is_canonical = True
        """Whether all base64 so far is plain: no line breaks, no data URL, standard alphabet."""
        self._rest = bytearray()
        self._containers: list[str | None] = []
        """From the outermost in: the current key of an object, None for a list."""
        self._last = b""
        """The last byte outside strings that is not white space."""
        # Not bound: a reference cycle would keep what was read until the garbage collector runs.
        self._state: Callable[[Base64Scanner, bytes, int], int] = Base64Scanner._structure
        self._pending = b""
        self._string: list[bytes] = []
        self._string_size = 0
        self._path = ""
        self._is_link = False
        self._decoder = Base64Decoder()
        self._left: int | None = None
        self._events: list[Event] = []

    @property
    def pictures(self) -> int:
        """Number of images that have begun."""
        return self._count

    @property
    def needs_end_only(self) -> bool:
        """Whether nothing is needed of what follows before the end of the current image."""
        return self._left == 0 and self._state is Base64Scanner._picture and not self._pending

    def feed(self, data: bytes) -> Sequence[Event]:
        """Return the events of a piece of the document. Raises `ScanError`."""
        first, *others = self.steps(data)
        return [*first, *(event for events in others for event in events)] if others else first

    def steps(self, data: bytes) -> Iterator[Sequence[Event]]:
        """Yield the same in steps of bounded work, between which the event loop can run; at least once."""
        if self._pending:
            data, self._pending = self._pending + data, b""
        self._events = []
        place, stop = 0, self._signs + _STEP
        while place < len(data):
            place = self._state(self, data, place)
            if self._signs >= stop:
                events, self._events = self._events, []
                yield events
                stop = self._signs + _STEP
        yield self._events

    def finish(self) -> bytes:
        """Return the rest of the complete document. Raises `ScanError` where it is incomplete."""
        if self._state is not Base64Scanner._structure or self._containers or self._pending:
            raise ScanError("The document is cut off.")
        return self.rest

    @property
    def rest_size(self) -> int:
        """Bytes of the rest so far."""
        return len(self._rest)

    @property
    def rest(self) -> bytes:
        """The rest of the document so far."""
        return bytes(self._rest)

    def _keep(self, data: bytes) -> None:
        self._rest += data
        if len(self._rest) > self._max_rest:
            raise ScanError("The document is too large, even without its pictures.")

    # States: each consumes input from `place` on, and returns where the next state continues.

    def _structure(self, data: bytes, place: int) -> int:
        start, stop = place, self._signs + _STEP
        while found := _STRUCTURE.search(data, place):
            if before := data[place : found.start()].rstrip(_SPACES):
                self._last = before[-1:]
            place = found.end()
            sign = found.group()
            self._count_sign()
            if sign == b'"':
                self._keep(data[start:place])
                self._begin_string()
                return place
            self._nest(sign)
            self._last = sign
            if self._signs >= stop:
                self._keep(data[start:place])
                return place
        if before := data[place:].rstrip(_SPACES):
            self._last = before[-1:]
        self._keep(data[start:])
        return len(data)

    def _count_sign(self) -> None:
        self._signs += 1
        if self._signs > self._max_signs:
            raise ScanError("The document has more members than any reply needs.")

    @property
    def _expects_key(self) -> bool:
        return bool(self._containers) and self._containers[-1] is not None and self._last in (b"{", b",")

    def _nest(self, sign: bytes) -> None:
        stack = self._containers
        if sign in b"{[":
            if len(stack) >= _MAX_DEPTH:
                raise ScanError("The document is nested too deeply.")
            stack.append("" if sign == b"{" else None)
        elif stack:
            stack.pop()
        else:
            raise ScanError("The document is no valid JSON.")

    def _begin_string(self) -> None:
        self._string, self._string_size = [], 0
        if self._expects_key:
            self._state = Base64Scanner._key
        elif self._may_be_picture():
            self._state = Base64Scanner._head
        else:
            self._state = Base64Scanner._plain
        self._last = b'"'

    def _may_be_picture(self) -> bool:
        last = next((key for key in reversed(self._containers) if key is not None), "")
        is_usual = self._usual and (plain(last) in _USUAL or self._may_be_result())
        if last not in self._last_keys and not is_usual:
            return False
        self._path = _path(self._containers)
        stem = self._path.removesuffix("[]")
        self._is_link = not any(_ends(stem, member) for member in self._members)
        return not self._is_link or is_usual

    def _may_be_result(self) -> bool:
        """Return whether a picture may stand here, under a name that nobody foresaw."""
        return all(may_hold_result(key) for key in self._containers if key)

    def _take(self, data: bytes, place: int) -> tuple[bytes, int, bool]:
        """Return more raw bytes of a string, where they end, and whether it ends there; never half an escape."""
        end = data.find(b'"', place)
        if data.find(b"\\", place, end if end >= 0 else len(data)) < 0:
            return (data[place:end], end + 1, True) if end >= 0 else (data[place:], len(data), False)
        found = _ESCAPED.match(data, place)
        end = found.end() if found else place
        if data[end : end + 1] == b'"':
            return data[place:end], end + 1, True
        if end < len(data):
            if not _CUT_ESCAPE.fullmatch(data, end):
                raise ScanError("The document is no valid JSON.")
            self._pending = data[end:]
        return data[place:end], len(data), False

    def _key(self, data: bytes, place: int) -> int:
        raw, place, ended = self._take(data, place)
        self._keep(raw)
        self._string_size += len(raw)
        if self._string_size <= _MAX_KEY:
            self._string.append(raw)
        if ended:
            self._keep(b'"')
            self._containers[-1] = _text(b"".join(self._string)) if self._string_size <= _MAX_KEY else ""
            self._state = Base64Scanner._structure
        return place

    def _plain(self, data: bytes, place: int) -> int:
        raw, place, ended = self._take(data, place)
        self._keep(raw)
        if ended:
            self._keep(b'"')
            self._state = Base64Scanner._structure
        return place

    def _head(self, data: bytes, place: int) -> int:
        """Decide from the beginning of a string whether it is an image."""
        raw, place, ended = self._take(data, place)
        self._string.append(raw)
        self._string_size += len(raw)
        if not ended and self._string_size < _HEAD:
            return place
        raw = b"".join(self._string)
        encoded = self._encoded(raw)
        if encoded is None:
            self._keep(raw)
            self._keep(b'"' if ended else b"")
            self._state = Base64Scanner._structure if ended else Base64Scanner._plain
            return place
        self._begin_picture()
        self._state = Base64Scanner._picture
        self._more_escaped(encoded)
        if ended:
            self._end_picture()
        return place

    def _encoded(self, raw: bytes) -> bytes | None:
        """Return the base64 at the beginning of a string, still escaped; None: it is not an image."""
        text = _text(raw) if b"\\" in raw or raw.startswith(b"data:") else ""
        if text.startswith("data:"):
            about, comma, encoded = text.partition(",")
            if not comma or (self._is_link and not about.endswith(";base64")):
                return None
            self.is_canonical = False
            return json.dumps(encoded)[1:-1].encode()
        if self._is_link and not self._holds_picture(text or raw.decode("latin-1")):
            return None
        self.is_canonical = self.is_canonical and not any(sign in raw for sign in _UNUSUAL)
        return raw or None

    def _holds_picture(self, text: str) -> bool:
        head = "".join(text[:_HEAD].split())
        if len(head) < _SHORTEST or not holds_picture(head):
            return False
        self.is_canonical = False
        return True

    def _begin_picture(self) -> None:
        if self._count >= _MAX_PICTURES:
            raise ScanError("The document has more pictures than any request asks for.")
        token = f"{TOKEN_MARK}{self._nonce}-{self._count}"
        self._count += 1
        self._keep(f'data:;base64,{token}"'.encode() if self._is_link else f'{token}"'.encode())
        self._decoder, self._left = Base64Decoder(), self._most
        self._events.append(PictureStart(token, self._path))

    def _picture(self, data: bytes, place: int) -> int:
        end = data.find(b'"', place)
        stop = end if end >= 0 else len(data)
        if data.find(b"\\", place, stop) < 0:
            if self._most == 0 and any(data.find(sign, place, stop) >= 0 for sign in _UNUSUAL):
                self.is_canonical = False
            self._more(memoryview(data)[place:stop])
            place, ended = stop + 1, end >= 0
        else:
            raw, place, ended = self._take(data, place)
            self._more_escaped(raw)
        if ended:
            self._end_picture()
        return place

    def _more_escaped(self, raw: bytes) -> None:
        if b"\\" not in raw:
            self._more(memoryview(raw))
            return
        if self.is_canonical and _ESCAPE_IN_BASE64.search(raw):
            self.is_canonical = False
        if self._left == 0:
            return
        unescaped = raw.replace(b"\\/", b"/")
        text = _text(raw).encode("utf-8", "replace") if b"\\" in unescaped else unescaped
        self._more(memoryview(text))

    def _more(self, text: memoryview) -> None:
        while text and self._left != 0:
            # No more than needed; white space makes it less, and the loop takes more.
            place = len(text) if self._left is None else self._left // 3 * 4 + 8
            pieces, text = self._decoder.feed(text[:place]), text[place:]
            for decoded in pieces:
                if self._left is not None:
                    decoded = decoded[: self._left]
                    self._left -= len(decoded)
                if decoded:
                    self._events.append(PictureData(decoded))

    def _end_picture(self) -> None:
        if self._left != 0 and (last := self._decoder.finish()):
            self._events.append(PictureData(last))
        self._events.append(PictureEnd())
        self._state = Base64Scanner._structure


def _path(containers: Iterable[str | None]) -> str:
    path = ""
    for key in containers:
        path += "[]" if key is None else f".{key}" if path else key
    return path


def _ends(path: str, member: str) -> bool:
    return path == member or path.endswith(f".{member}")


def _text(raw: bytes) -> str:
    """Return a JSON string's text, from between its quotes. Raises `ScanError`."""
    try:
        text = json.loads(b'"' + raw + b'"')
    except (ValueError, RecursionError):
        raise ScanError("The document is no valid JSON.") from None
    return text if isinstance(text, str) else ""
