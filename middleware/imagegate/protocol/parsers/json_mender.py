"""JSON that is passed on while it arrives, without what RFC 8259 forbids. No I/O.

Lone surrogates and bytes that are no UTF-8 become U+FFFD, control characters become blanks, base64 gets the padding
that it lacks and loses its line breaks; what is between the strings is mended by `json_structure`. Sound documents
come out as they went in; long texts, which are pictures, cost a search for their end.
"""

from __future__ import annotations

import codecs
import re
from typing import Final

from imagegate.protocol.parsers.json_structure import StructureMender

_REST_OF_TEXT: Final = {
    b'"': re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL),
    b"'": re.compile(rb"[^'\\]*(?:\\.[^'\\]*)*", re.DOTALL),
}
_ESCAPE: Final = re.compile(
    rb"\\(?:(u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|u[dD][89a-fA-F][0-9a-fA-F]{2}"
    rb"|([\"\\/bfnrt]|u[0-9a-fA-F]{4})|(')|)"
)
_BARE_QUOTE: Final = re.compile(rb'(\\.)|"', re.DOTALL)
_HIGH: Final = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}")
_CONTROL: Final = re.compile(rb"[\x00-\x1f]")
_SPACE: Final = re.compile(rb"\\[nrt]|[ \t\r\n]")
_LONGEST_ESCAPE: Final = 12
_LONG: Final = 4096
"""Bytes of one piece of a text from which on it is taken for a picture: there is nothing in it but base64."""
_LONGEST_KEY: Final = 16
_PICTURE: Final = b"b64_json"
_DATA_URL: Final = b"data:"


def mended(body: bytes) -> bytes:
    """Return a whole document."""
    mender = JSONMender()
    return mender.feed(body) + mender.finish()


class JSONMender:
    """Takes a document in pieces cut anywhere, and gives it back."""

    def __init__(self) -> None:
        self._held = b""
        self._structure = StructureMender()
        self._quote = b""
        """That ends the text which is going on; empty: none is."""
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._last = b""
        """The beginning of the text that has ended last, or is going on."""
        self._between = b""
        """What has come since that text."""
        self._is_picture = False
        self._characters = 0
        """Of the base64 that is going on, without padding."""
        self._padding = 0
        """Signs of it that are not written before the end."""

    def feed(self, data: bytes) -> bytes:
        """Return what a piece becomes."""
        return self._feed(data, is_last=False)

    def pass_on(self, data: bytes) -> bool:
        """Take a piece that `feed` would return as it is; False: it is to be fed.

        Such a piece lies amid base64 and holds nothing but that. Most pieces of a large document do.
        """
        is_amid = self._is_picture and self._quote == b'"' and len(self._last) > _LONGEST_KEY
        if not is_amid or self._held or self._padding or self._utf8.getstate()[0] or not _is_base64(data):
            return False
        self._characters += len(data)
        return True

    def finish(self) -> bytes:
        """Return what was held back at the end of the document."""
        if self._quote:
            held, self._held = self._held, b""
            return held
        return self._feed(b"", is_last=True)

    def _feed(self, data: bytes, *, is_last: bool) -> bytes:
        data, self._held = self._held + data if self._held else data, b""
        out: list[bytes] = []
        place = 0
        while place < len(data):
            if self._quote:
                place = self._text(data, place, out)
                continue
            written, end, self._quote, is_held = self._structure.feed(data, place, is_last=is_last)
            out.append(written)
            self._between = (self._between + written)[:_LONGEST_KEY]
            if self._quote:
                self._begin_text()
            elif is_held:
                self._held = data[end:]
                break
            place = end
        return out[0] if len(out) == 1 else b"".join(out)

    def _begin_text(self) -> None:
        self._is_picture = self._last == _PICTURE and self._between.split() in ([b':"'], [b":", b'"'])
        self._last, self._between = b"", b""
        self._characters = self._padding = 0

    def _text(self, data: bytes, place: int, out: list[bytes]) -> int:
        end = data.find(self._quote, place)
        stop = len(data) if end < 0 else end
        is_plain = data.find(b"\\", place, stop) < 0
        if not is_plain:
            found = _REST_OF_TEXT[self._quote].match(data, place)
            stop = found.end() if found else place
            end = stop if data[stop : stop + 1] == self._quote else -1
            if end < 0:  # an escape may be cut
                stop = len(data)
                cut = data.rfind(b"\\", max(place, stop - _LONGEST_ESCAPE + 1))
                if cut >= 0:
                    cut = self._whole_escapes(data, place, cut)
                    self._held, stop = data[cut:], cut
        piece = data if (place, stop) == (0, len(data)) else data[place:stop]
        out.append(self._sound(piece, is_plain=is_plain and self._quote == b'"'))
        if end < 0:
            return len(data)
        self._end_text(out)
        return end + 1

    def _end_text(self, out: list[bytes]) -> None:
        if rest := self._utf8.decode(b"", final=True):
            out.append(rest.encode())
            self._utf8.reset()
        if self._is_picture:
            missing = -self._characters % 4
            out.append(b"=" * (missing if missing < 3 and self._characters else self._padding))
        out.append(b'"')
        self._quote = b""

    @staticmethod
    def _whole_escapes(data: bytes, place: int, cut: int) -> int:
        """Return where the last escapes begin that more may follow: half a pair, or half an escape."""
        cut = max(place, len(data[: cut + 1].rstrip(b"\\")))  # an escaped backslash is looked at from its first one
        return cut - 6 if cut - 6 >= place and _HIGH.fullmatch(data[cut - 6 : cut]) else cut

    def _sound(self, piece: bytes, *, is_plain: bool) -> bytes:
        """Return a piece of a text as it is written between double quotes; a plain one has nothing escaped in it."""
        if len(self._last) <= _LONGEST_KEY:
            self._last += piece[: _LONGEST_KEY + 1]
            self._is_picture = self._is_picture and not self._last.startswith(_DATA_URL)
        if not is_plain:
            piece = _ESCAPE.sub(_escape, piece)
            if self._quote == b"'":
                piece = _BARE_QUOTE.sub(lambda found: found[1] or b'\\"', piece)
        if not piece.isascii() or self._utf8.getstate()[0]:
            piece = self._utf8.decode(piece).encode()
        if self._is_picture:
            return self._base64(piece, is_plain=is_plain)
        return piece if len(piece) > _LONG else _CONTROL.sub(b" ", piece)

    def _base64(self, piece: bytes, *, is_plain: bool) -> bytes:
        if not is_plain or b"\n" in piece or b" " in piece:
            piece = _SPACE.sub(b"", piece)
        text = piece.rstrip(b"=")
        padding = len(piece) - len(text)
        if text and self._padding:  # what follows the padding is no base64 any more
            text, self._padding = b"=" * self._padding + text, 0
        self._characters += len(text) if is_plain else len(text) - text.count(b"\\")
        self._padding += padding
        return text


def _is_base64(data: bytes) -> bool:
    """Return whether a piece has no sign in it that `JSONMender` acts on amid base64; each is found quickly."""
    return (
        data.isascii()
        and b'"' not in data
        and b"\\" not in data
        and b"\n" not in data
        and b" " not in data
        and not data.endswith(b"=")
    )


def _escape(found: re.Match[bytes]) -> bytes:
    if found[1] or found[2]:
        return found[0]
    if found[3]:
        return b"'"
    return rb"\ufffd" if len(found[0]) > 1 else rb"\\"
