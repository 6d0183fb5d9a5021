"""Pictures of an exact weight, of the size that requests ask for: valid PNG."""

from __future__ import annotations

import random
import struct
import zlib
from functools import cache

PIXELS = 1024
"""Width and height."""


@cache
def large(seed: int = 0) -> bytes:
    """Return a square of noise, not compressed: 4 MiB."""
    rows = random.Random(seed)
    raw = b"".join(b"\0" + rows.randbytes(4 * PIXELS) for _ in range(PIXELS))
    return _png(8, 6, (b"IDAT", zlib.compress(raw, 0)))


@cache
def small(seed: int = 0) -> bytes:
    """Return a black square with a note of noise; a reply that has it in base64 is about a kilobyte."""
    note = random.Random(seed).randbytes(400)
    pixels = zlib.compress(bytes(PIXELS * (1 + PIXELS // 8)), 9)
    return _png(1, 0, (b"noTe", note), (b"IDAT", pixels))


def _png(depth: int, colours: int, *chunks: tuple[bytes, bytes]) -> bytes:
    head = struct.pack(">IIBBBBB", PIXELS, PIXELS, depth, colours, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in ((b"IHDR", head), *chunks, (b"IEND", b""))
    )
