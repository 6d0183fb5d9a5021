"""Pictures of an exact weight: valid PNG, not compressed."""

from __future__ import annotations

import random
import struct
import zlib
from functools import cache


@cache
def png(pixels: int, seed: int = 0) -> bytes:
    """A square of noise, ``pixels`` wide: four bytes a pixel and a little more; 1,024 are 4 MiB."""
    rows = random.Random(seed)
    raw = b"".join(b"\0" + rows.randbytes(4 * pixels) for _ in range(pixels))
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", pixels, pixels, 8, 6, 0, 0, 0)),
        (b"IDAT", zlib.compress(raw, 0)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


SMALL = 14
"""Pixels of a picture whose reply has about a kilobyte."""
LARGE = 1024
