"""Server-sent events, read while they arrive and written piece by piece (WHATWG HTML, section 9.2). No I/O.

The data of an event may hold a picture of many megabytes, so its lines are handed on before the event is complete.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

HEARTBEAT = b": waiting\n\n"
"""A comment: keeps proxies from hanging up, and no client sees it."""
END_MARK = b"[DONE]"
"""Data after which nothing comes, in streams that have such a mark; the official SDKs read no further."""
_LINE_END = re.compile(rb"\r\n|\n|\r")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_KEPT_FIELDS = (b"id", b"retry")
_LONGEST_FIELD = 4096
"""Bytes of a line that is no data."""
_MOST_LINES = 10_000
"""Of data in one event."""
_STEP = 2048
"""Lines, about two milliseconds, after which others should have a turn."""
_NEXT_FIELD = re.compile(rb"[\r\n][^:\r\n]")
"""The end of a line before one that is neither empty nor a comment."""


class SSEError(Exception):
    """The stream is broken; the text is for the client."""


class EventText(msgspec.Struct, frozen=True):
    """More of the data of the event that is coming in."""

    data: bytes


class EventEnd(msgspec.Struct, frozen=True):
    """The event is complete. `lines` are its last ``id`` and ``retry`` lines, as they came."""

    name: str
    lines: tuple[bytes, ...] = ()


class Pause(msgspec.Struct, frozen=True):
    """Many lines have been read, whether or not they bring anything: others should have a turn."""


Token = EventText | EventEnd | Pause
PAUSE = Pause()


class EventReader:
    """Cuts a stream into events. Comments are dropped, and fields that the format does not have."""

    def __init__(self) -> None:
        self._mark: bytes | None = b""
        """The beginning of the stream, as long as it may be a byte order mark."""
        self._line = bytearray()
        """A line whose field is not known yet, or that is no data."""
        self._in_data = False
        self._after_return = False
        self._name = ""
        self._kept: dict[bytes, bytes] = {}
        self._data_lines = 0

    def feed(self, data: bytes) -> Iterator[Token]:
        """Yield what a piece of the stream brings. Raises `SSEError`."""
        if self._mark is not None:
            data = self._mark + data
            if len(data) < len(_BYTE_ORDER_MARK) and _BYTE_ORDER_MARK.startswith(data):
                self._mark = data
                return
            self._mark, data = None, data.removeprefix(_BYTE_ORDER_MARK)
        place = 0
        if self._after_return and data:
            place = int(data[:1] == b"\n")
            self._after_return = False
        lines = 0
        while place < len(data):
            if self._is_idle and data[place] in b":\r\n":
                place = self._skipped(data, place)
                continue
            lines += 1
            if lines % _STEP == 0:
                yield PAUSE
            found = _LINE_END.search(data, place)
            stop = found.start() if found else len(data)
            yield from self._more(data[place:stop])
            if found is None:
                return
            yield from self._end_line()
            place = found.end()
            self._after_return = found.group() == b"\r" and place == len(data)

    @property
    def _is_idle(self) -> bool:
        """Whether a line begins, and no event has."""
        return not (self._line or self._in_data or self._data_lines or self._name)

    def _skipped(self, data: bytes, place: int) -> int:
        """Return where the next field begins, after comments and empty lines, thousands of which are one step."""
        if found := _NEXT_FIELD.search(data, place):
            return found.end() - 1
        last = max(data.rfind(b"\n", place), data.rfind(b"\r", place)) + 1
        if last < len(data) and data[max(last, place)] == ord(":"):
            self._line[:] = b":"  # a comment that goes on
        self._after_return = data.endswith(b"\r")
        return len(data)

    def finish(self) -> Iterator[Token]:
        """End the stream, and yield a last event that only lacks its empty line.

        Whether its data is whole, who reads that finds out. Raises `SSEError` where an event had begun without data.
        """
        is_cut = bool(self._line) and not self._line.startswith(b":")
        if is_cut:
            yield from self._end_line()
        if self._data_lines:
            yield self._end_event()
        elif is_cut or self._name:
            raise SSEError("The stream is cut off.")

    def _more(self, piece: bytes) -> Iterator[Token]:
        if self._in_data:
            if piece:
                yield EventText(piece)
            return
        self._line += piece
        if self._line.startswith(b"data:") and len(self._line) > len(b"data: "):
            yield from self._begin_data()
        elif self._line.startswith(b":"):
            del self._line[1:]
        elif len(self._line) > _LONGEST_FIELD:
            if self._line.startswith((b"event:", *(name + b":" for name in _KEPT_FIELDS))):
                raise SSEError("A line of the stream is too long.")
            self._line[:] = b":"  # an unknown field is treated as a comment

    def _begin_data(self) -> Iterator[Token]:
        value = bytes(self._line[5:]).removeprefix(b" ")
        self._line.clear()
        self._in_data = True
        yield EventText((b"\n" if self._data_lines else b"") + value)
        self._data_lines += 1
        if self._data_lines > _MOST_LINES:
            raise SSEError("An event has too many lines.")

    def _end_line(self) -> Iterator[Token]:
        if self._in_data:
            self._in_data = False
            return
        line = bytes(self._line)
        self._line.clear()
        if not line:
            if self._data_lines:
                yield self._end_event()
            self._name = ""
            return
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._line += line if line != b"data" else b"data:"
            yield from self._begin_data()
            self._in_data = False
        elif field == b"event":
            self._name = value.decode("utf-8", "replace")
        elif field in _KEPT_FIELDS:
            self._kept[field] = line

    def _end_event(self) -> EventEnd:
        end = EventEnd(self._name, tuple(self._kept.values()))
        self._name, self._kept, self._data_lines = "", {}, 0
        return end


def event_head(name: str, lines: tuple[bytes, ...] = ()) -> bytes:
    """Return the lines before the data of an event."""
    head = b"".join(line + b"\n" for line in lines)
    return head + (f"event: {name}\n".encode() if name else b"") + b"data: "


def event_data(data: bytes) -> bytes:
    """Return data with ``data: `` before each of its lines."""
    return b"\ndata: ".join(_LINE_END.split(data))


EVENT_END = b"\n\n"


def event(name: str, data: bytes) -> bytes:
    """Return a whole event."""
    return event_head(name) + event_data(data) + EVENT_END
