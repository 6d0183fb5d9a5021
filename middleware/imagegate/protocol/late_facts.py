"""What a picture says behind its first bytes: a palette's transparency, the size behind large metadata. Pure."""

from __future__ import annotations

from collections.abc import Callable
from struct import unpack
from typing import Final

from imagegate.protocol.image_format import Facts

_PNG_HEAD: Final = 33
"""Bytes of the signature and of IHDR."""
_NO_FRAME: Final = (0xC4, 0xC8, 0xCC)
_MOST_PARTS: Final = 4096
"""Chunks, segments and fill bytes that are followed. Real files have a few dozen before their pixels; one that is made
of empty ones would keep the event loop busy for a microsecond for every twelve of its bytes."""


class LateFacts:
    """Follows the chunks of a PNG (PNG 5.3) or the segments of a JPEG (ITU T.81 B.1.1) as the file comes in."""

    def __init__(self) -> None:
        self.is_done = False
        """Whether nothing more can be found."""
        self._alpha = False
        self._size: tuple[int, int] | None = None
        self._held = b""
        self._need = _PNG_HEAD
        self._skip = 0
        self._parts = 0
        self._read: Callable[[LateFacts, bytes], None] = LateFacts._start

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the file."""
        place = 0
        while place < len(data) and not self.is_done:
            if self._skip:
                step = min(self._skip, len(data) - place)
                self._skip -= step
            else:
                step = min(self._need - len(self._held), len(data) - place)
                self._held += data[place : place + step]
                if len(self._held) == self._need:
                    self._parts += 1
                    self._read(self, self._held)
                    self.is_done = self.is_done or self._parts > _MOST_PARTS
            place += step

    def complete(self, facts: Facts | None) -> Facts | None:
        """Return the facts of the file's head with what was found behind it."""
        if facts is None:
            return None
        width, height = self._size or (facts.width, facts.height)
        return facts._replace(alpha=facts.alpha or self._alpha, width=width, height=height)

    def _next(self, need: int, skip: int = 0) -> None:
        self._held, self._need, self._skip = b"", need, skip

    def _start(self, head: bytes) -> None:
        if head.startswith(b"\x89PNG\r\n\x1a\n"):
            self.is_done = head[25] in (4, 6)  # has alpha anyhow
            self._read = LateFacts._chunk
            self._next(8)
        elif head.startswith(b"\xff\xd8\xff"):
            self._read = LateFacts._marker
            self._next(2)
            self.feed(head[2:])
        else:
            self.is_done = True

    def _chunk(self, head: bytes) -> None:
        length, name = unpack(">I4s", head)
        self._alpha = name == b"tRNS"
        self.is_done = name in (b"tRNS", b"IDAT", b"IEND") or not name.isalpha()
        self._next(8, length + 4)

    def _marker(self, head: bytes) -> None:
        marker = head[1]
        if head[0] != 0xFF or marker in (0xD9, 0xDA):
            self.is_done = True
        elif len(head) == 2:
            if marker == 0xFF:  # a fill byte
                self._held = head[1:]
            elif marker == 0x01 or 0xD0 <= marker <= 0xD8:
                self._next(2)
            else:
                self._need = 9 if 0xC0 <= marker <= 0xCF and marker not in _NO_FRAME else 4
        elif len(head) == 9:
            height, width = unpack(">HH", head[5:])
            self._size, self.is_done = (width, height), True
        else:
            self._next(2, max(0, int.from_bytes(head[2:4]) - 2))
