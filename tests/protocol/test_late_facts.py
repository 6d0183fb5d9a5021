"""What a picture says behind its first bytes, however the file is cut."""

from __future__ import annotations

import struct
import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegate.protocol.image_format import inspect
from imagegate.protocol.late_facts import LateFacts

HEAD = 64 * 1024


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks: bytes, colour: int = 3) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 7, 5, 8, colour, 0, 0, 0)) + b"".join(chunks)


def jpeg(*segments: tuple[int, bytes]) -> bytes:
    return b"\xff\xd8" + b"".join(b"\xff%c" % kind + struct.pack(">H", len(data) + 2) + data for kind, data in segments)


def facts(content: bytes, cuts: list[int]) -> tuple[int, int, bool]:
    late = LateFacts()
    for start, end in pairwise([0, *sorted(cuts), len(content)]):
        late.feed(content[start:end])
    found = late.complete(inspect(content[:HEAD]))
    assert found is not None
    return found.width, found.height, found.alpha


FRAME = (0xC2, b"\x08" + struct.pack(">HH", 5, 7) + b"\x03" + bytes(9))
CASES = [
    (png(chunk(b"iCCP", bytes(100_000)), chunk(b"PLTE", b"abc"), chunk(b"tRNS", b"\0"), chunk(b"IDAT", b"x")), True),
    (png(chunk(b"iCCP", bytes(100_000)), chunk(b"IDAT", b"x"), chunk(b"tRNS", b"\0")), False),
    (png(chunk(b"tRNS", b"\0"), colour=2), True),
    (png(chunk(b"IDAT", b"x"), colour=6), True),
    (png(chunk(b"iTXt", b"tRNS"), chunk(b"IDAT", b"tRNS")), False),
    (jpeg((0xE2, bytes(65_000)), (0xE2, bytes(65_000)), FRAME, (0xDA, b"")), False),
    (jpeg((0xE1, b"\xff\xc0" * 100), FRAME), False),
    (b"\xff\xd8\xff" + jpeg(FRAME)[2:], False),
]


@pytest.mark.parametrize(("content", "alpha"), CASES)
@given(data=st.data())
def test_cases(content: bytes, alpha: bool, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(content)), max_size=5))
    assert facts(content, cuts) == (7, 5, alpha)


@given(st.binary(max_size=80), st.sampled_from([b"", png(), b"\xff\xd8\xff"]))
def test_any_bytes(rest: bytes, head: bytes) -> None:
    """Nothing raises and nothing hangs."""
    late = LateFacts()
    late.feed(head + rest)
    late.complete(inspect(head + rest))


@pytest.mark.parametrize(
    "part", [chunk(b"teXt", b""), b"\xff\xe2\x00\x02", b"\xff", b"\xff\x01"], ids=["chunk", "segment", "fill", "marker"]
)
def test_no_end_of_small_parts(part: bytes) -> None:
    """Following them has a bound: they are a client's, and each costs time in the event loop."""
    head = png() if part[0] != 0xFF else b"\xff\xd8"
    late, followed = LateFacts(), 0
    late.feed(head)
    while not late.is_done and followed < 100_000:
        late.feed(part)
        followed += 1
    assert 1000 < followed < 10_000
    assert late.complete(inspect(head)) == inspect(head)


def test_zeros_are_no_chunks() -> None:
    late = LateFacts()
    late.feed(png() + bytes(24))
    assert late.is_done
