"""Mend what is between the strings of a JSON document while it arrives. No I/O.

Providers print documents with the means of their languages: ``None``, ``undefined`` and ``NaN``, a comma behind the
last item, comments, keys without quotes, numbers that JSON writes otherwise. What is meant is written as RFC 8259 has
it, and what cannot be said becomes null. What precedes the document and what follows it is left out.
"""

from __future__ import annotations

import re
from math import isfinite
from typing import Final, NamedTuple

_BLANKS: Final = b" \t\r\n"
_WORD: Final = rb"[\w.+$-]"
_GOOD: Final = rb"(?:true|false|null|-?(?:0|[1-9][0-9]{0,299})(?:\.[0-9]{1,300})?(?:[eE][+-]?[0-9]{1,2})?)"
_IS_GOOD: Final = re.compile(_GOOD)
_ODD: Final = re.compile(
    rb"[^ \t\r\n,:{}\[\]\w.+$-]"  # a comment, a text in other quotes, rubbish
    rb"|,[ \t\r\n]*[}\],]|[{\[][ \t\r\n]*,"  # a comma too many
    rb"|(?<!" + _WORD + rb")(?!" + _GOOD + rb"(?!" + _WORD + rb"))" + _WORD
)
_TOKEN: Final = re.compile(
    rb"(?P<blank>[ \t\r\n]+)"
    rb"|(?P<open>[{\[])|(?P<close>[}\]])|(?P<comma>,)|(?P<colon>:)|(?P<quote>[\"'])"
    rb"|(?P<comment>/\*.{0,1000}?\*/|(?://|\#)[^\n]{0,1000}\n)"
    rb"|(?P<key>(?!(?:true|false|null)[ \t\r\n:])[A-Za-z_$][\w.+$-]*[ \t\r\n]*:)|(?P<word>[\w.+$-]+)"
    rb"|(?P<other>.)",
    re.DOTALL,
)
_WORD_CHARACTERS: Final = b"0123456789_.+$-ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_BEGIN: Final = re.compile(rb"[{\[]")
_LITERALS: Final = {b"True": b"true", b"False": b"false", b"TRUE": b"true", b"FALSE": b"false"}
_NUMBER: Final = re.compile(rb"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_MOST_HELD: Final = 4096
"""Bytes that are held back until it is known what they are."""
_MOST_ODD: Final = 10_000
"""Tokens of a document that are looked at one by one; the rest of it goes on as it is."""
_WINDOW: Final = 4096
"""Bytes in which the next text is looked for at a time, so that the work for a document grows as it does."""


_GIVEN_UP: Final = 2**62
"""A depth that no document comes back from."""


class Structure(NamedTuple):
    """What a piece of structure becomes."""

    out: bytes
    end: int
    """Where the piece ends."""
    quote: bytes = b""
    """Begins a text; empty: none has begun."""
    is_held: bool = False
    """Whether what follows has to be held back, until more of it has come."""


class StructureMender:
    """Follows the objects and arrays of one document."""

    def __init__(self) -> None:
        self._depth = 0
        self._last = b""
        """The last sign."""
        self._comma = b""
        """A comma, with the blanks behind it, that is not written before it is known what follows."""
        self._odd = 0
        self.has_ended = False

    def feed(self, data: bytes, place: int, *, is_last: bool) -> Structure:
        """Return what the data has from `place` on, up to the next text; `is_last`: nothing is to be held back."""
        if self.has_ended:
            return Structure(b"", len(data))
        if self._depth == 0:
            return self._begin(data, place)
        window = min(place + _WINDOW, len(data))
        is_cut = window < len(data)
        quote = data.find(b'"', place, window)
        stop = quote if quote >= 0 else window if is_last and not is_cut else _end_of_settled(data, place, window)
        piece = self._comma + data[place:stop]
        closing = piece.count(b"}") + piece.count(b"]")
        if closing >= self._depth or (self._odd < _MOST_ODD and self._is_odd(piece)):
            return self._odd_piece(data, place, is_last=is_last)
        self._depth += piece.count(b"{") + piece.count(b"[") - closing
        stripped = piece.rstrip(_BLANKS)
        self._last, self._comma = stripped[-1:] or self._last, b""
        if quote >= 0:
            self._last = b'"'
            return Structure(piece + b'"', quote + 1, b'"')
        if stripped.endswith(b",") and (is_cut or not is_last) and len(piece) - len(stripped) < _MOST_HELD:
            piece, self._comma, self._last = stripped[:-1], piece[len(stripped) - 1 :], b""
        return Structure(piece, stop, is_held=stop < len(data) and not is_cut)

    def _begin(self, data: bytes, place: int) -> Structure:
        found = _BEGIN.search(data, place)
        if found is None:
            return Structure(b"", len(data))
        self._depth, self._last = 1, found.group()
        return Structure(found.group(), found.end())

    def _is_odd(self, piece: bytes) -> bool:
        return _ODD.search(piece) is not None or (self._last in (b"{", b"[") and piece.lstrip(_BLANKS)[:1] == b",")

    def _odd_piece(self, data: bytes, place: int, *, is_last: bool) -> Structure:
        out: list[bytes] = []
        while place < len(data) and not self.has_ended:
            if self._odd >= _MOST_ODD:
                self._depth = _GIVEN_UP
                rest = self.feed(data, place, is_last=is_last)
                return rest._replace(out=b"".join(out) + rest.out)
            found = _TOKEN.match(data, place)
            if found is None:
                raise AssertionError("every byte is a token")
            kind, token = found.lastgroup or "", found.group()
            if not is_last and len(data) - place <= _MOST_HELD and _may_go_on(kind, data, found.end()):
                return Structure(b"".join(out), place, is_held=True)
            place = found.end()
            self._odd += 1
            self._take(kind, token, out)
            if kind == "quote":
                return Structure(b"".join(out), place, token)
        return Structure(b"".join(out), len(data) if self.has_ended else place)

    def _take(self, kind: str, token: bytes, out: list[bytes]) -> None:
        if kind == "comma":
            if not self._comma and self._last not in (b"{", b"["):
                self._comma = token
        elif kind == "blank":
            if self._comma and len(self._comma) < _MOST_HELD:
                self._comma += token
            else:
                out.append(token)
        elif kind not in ("comment", "other"):
            out.append(self._comma[1:] if kind == "close" else self._comma)
            out.append(_written(kind, token))
            self._comma, self._last = b"", token[-1:]
            self._depth += (kind == "open") - (kind == "close")
            self.has_ended = self._depth == 0


def _written(kind: str, token: bytes) -> bytes:
    """Return a token as JSON has it; a word is a literal, a number, or null."""
    if kind == "quote":
        return b'"'
    if kind == "key":
        return b'"%b":' % token[:-1].rstrip(_BLANKS)
    if kind != "word" or _IS_GOOD.fullmatch(token):
        return token
    if not _NUMBER.fullmatch(token):
        return _LITERALS.get(token, b"null")
    number = float(token)
    return repr(number).encode() if isfinite(number) else b"null"


def _end_of_settled(data: bytes, place: int, end: int) -> int:
    """Return where a word begins at the end of a piece, more of which may follow."""
    settled = place + len(data[place:end].rstrip(_WORD_CHARACTERS))
    return settled if settled > place or end - place < _WINDOW else end


def _may_go_on(kind: str, data: bytes, end: int) -> bool:
    """Return whether what follows may change what a token is."""
    if kind == "word":
        return not data[end:].strip(_BLANKS)
    return kind == "other" and data[end - 1 : end] in (b"/", b"#")
