"""JSON that is passed on while it arrives, without what RFC 8259 forbids. No I/O.

Left out is a byte order mark; ``NaN`` and ``Infinity`` become null, lone surrogates and bytes that are no UTF-8 become
U+FFFD, control characters become blanks, and base64 gets the padding that it lacks. Sound documents come out as they
went in; long texts, which are pictures, cost a search for their end.
"""

from __future__ import annotations

import codecs
import re
from typing import Final

_MARK: Final = codecs.BOM_UTF8
_NO_NUMBER: Final = re.compile(rb"-?Infinity|NaN")
_CUT_NUMBER: Final = re.compile(rb"(?<![A-Za-z-])(?:-?I[a-z]{0,6}|Na?|-)$")
_REST_OF_TEXT: Final = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)
_ESCAPE: Final = re.compile(
    rb"\\(?:(u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|u[dD][89a-fA-F][0-9a-fA-F]{2}"
    rb'|(["\\/bfnrt]|u[0-9a-fA-F]{4})|)'
)
_HIGH: Final = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}")
_CONTROL: Final = re.compile(rb"[\x00-\x1f]")
_LONGEST_ESCAPE: Final = 12
_LONG: Final = 4096
"""Bytes of one piece of a text from which on it is taken for a picture: there is nothing in it but base64."""
_LONGEST_KEY: Final = 16
_PICTURE: Final = b"b64_json"


class JSONMender:
    """Takes a document in pieces cut anywhere, and gives it back."""

    def __init__(self) -> None:
        self._held = b""
        self._is_at_start = True
        self._in_text = False
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._last = b""
        """The text that has ended last, or is going on, if it may be a key."""
        self._between = b""
        """What has come since that text."""
        self._is_picture = False
        self._characters = 0
        """Of the text that is going on."""

    def feed(self, data: bytes) -> bytes:
        """Return what a piece becomes."""
        data, self._held = self._held + data, b""
        if self._is_at_start:
            if len(data) < len(_MARK) and _MARK.startswith(data):
                self._held = data
                return b""
            self._is_at_start = False
            data = data.removeprefix(_MARK)
        out: list[bytes] = []
        place = 0
        while place < len(data):
            place = self._text(data, place, out) if self._in_text else self._structure(data, place, out)
        return out[0] if len(out) == 1 else b"".join(out)

    def finish(self) -> bytes:
        """Return what was held back at the end of the document."""
        held, self._held = self._held, b""
        return held

    def _structure(self, data: bytes, place: int, out: list[bytes]) -> int:
        end = data.find(b'"', place)
        piece = data[place:] if end < 0 else data[place : end + 1]
        if end < 0 and (cut := _CUT_NUMBER.search(piece)):
            piece, self._held = piece[: cut.start()], cut.group()
        out.append(_NO_NUMBER.sub(b"null", piece) if b"N" in piece or b"I" in piece else piece)
        self._between = (self._between + piece)[:_LONGEST_KEY]
        if end < 0:
            return len(data)
        self._is_picture = self._last == _PICTURE and self._between.split() in ([b':"'], [b":", b'"'])
        self._in_text, self._last, self._between, self._characters = True, b"", b"", 0
        return end + 1

    def _text(self, data: bytes, place: int, out: list[bytes]) -> int:
        end = data.find(b'"', place)
        stop = len(data) if end < 0 else end
        if data.find(b"\\", place, stop) >= 0:
            found = _REST_OF_TEXT.match(data, place)
            stop = found.end() if found else place
            end = stop if data[stop : stop + 1] == b'"' else -1
            if end < 0:  # an escape may be cut
                stop = len(data)
                cut = data.rfind(b"\\", max(place, stop - _LONGEST_ESCAPE + 1))
                if cut >= 0:
                    cut = self._whole_escapes(data, place, cut)
                    self._held, stop = data[cut:], cut
        piece = data if (place, stop) == (0, len(data)) else data[place:stop]
        out.append(self._sound(piece))
        if end < 0:
            return len(data)
        if rest := self._utf8.decode(b"", final=True):
            out.append(rest.encode())
            self._utf8.reset()
        if self._is_picture and (missing := -self._characters % 4) < 3:
            out.append(b"=" * missing)
        out.append(b'"')
        self._in_text = False
        return end + 1

    @staticmethod
    def _whole_escapes(data: bytes, place: int, cut: int) -> int:
        """Return where the last escapes begin that more may follow: half a pair, or half an escape."""
        cut = max(place, len(data[: cut + 1].rstrip(b"\\")))  # an escaped backslash is looked at from its first one
        return cut - 6 if cut - 6 >= place and _HIGH.fullmatch(data[cut - 6 : cut]) else cut

    def _sound(self, piece: bytes) -> bytes:
        self._characters += len(piece)
        if len(self._last) <= _LONGEST_KEY:
            self._last += piece[: _LONGEST_KEY + 1]
        if b"\\" in piece:
            self._characters -= piece.count(b"\\")
            piece = _ESCAPE.sub(_escape, piece)
        if not piece.isascii() or self._utf8.getstate()[0]:
            piece = self._utf8.decode(piece).encode()
        return piece if len(piece) > _LONG else _CONTROL.sub(b" ", piece)


def _escape(found: re.Match[bytes]) -> bytes:
    if found[1] or found[2]:
        return found[0]
    return rb"\ufffd" if len(found[0]) > 1 else rb"\\"
