"""Files of requests that are in memory, and small pictures to fill them with."""

from __future__ import annotations

import functools
import struct
import zlib
from collections.abc import AsyncIterator

from imagegate.adapter import FileRef
from imagegate.protocol.image_format import Facts, inspect


class MemoryFile(FileRef):
    """A file of a request, as adapters get it."""

    def __init__(self, content: bytes, *, filename: str = "image.png", part: str = "image") -> None:
        self.content = content
        self.filename = filename
        self.part = part
        self.declared_type = ""
        self.size = len(content)

    @property
    def facts(self) -> Facts | None:
        return inspect(self.content)

    @property
    def media_type(self) -> str:
        facts = self.facts
        return facts.kind.media_type if facts else "application/octet-stream"

    async def chunks(self) -> AsyncIterator[bytes]:
        for place in range(0, self.size, 65536):
            yield self.content[place : place + 65536]


@functools.lru_cache(1000)
def png(width: int = 8, height: int = 8, *, shade: int = 0, alpha: bool = True) -> bytes:
    """Return a picture of one colour; with `alpha`, its upper half is transparent, as in a mask.

    Args:
        shade: from 0 to 255; pictures of different shades differ.
    """
    pixel = bytes((shade, 128, 64))
    rows = b"".join(
        b"\0" + (pixel + (b"\0" if row < height // 2 else b"\xff") if alpha else pixel) * width for row in range(height)
    )
    header = struct.pack(">IIBBBBB", width, height, 8, 6 if alpha else 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
