"""A C2PA manifest is found by its place in the file, and no bytes are too strange to look through."""

from __future__ import annotations

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from imagegate.protocol.provenance import has_c2pa

PNG = b"\x89PNG\r\n\x1a\n"
HEADER = b"\0\0\0\rIHDR" + bytes(17)
MANIFEST = b"jumb....jumdc2pa"
BOX = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")


def chunk(name: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + name + data + bytes(4)


def segment(marker: int, data: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(data) + 2) + data


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (PNG + HEADER + chunk(b"caBX", MANIFEST), True),
        (PNG + HEADER + chunk(b"gAMA", bytes(4)) + chunk(b"caBX", MANIFEST), True),
        (PNG + HEADER + chunk(b"tEXt", b"caBX c2pa") + chunk(b"IDAT"), False),
        (PNG + HEADER + chunk(b"IDAT", MANIFEST), False),
        (b"\xff\xd8" + segment(0xE0, b"JFIF") + segment(0xEB, MANIFEST), True),
        (b"\xff\xd8" + segment(0xE1, b"c2pa in Exif") + segment(0xDA, b""), False),
        (b"\xff\xd8" + segment(0xDA, b"") + segment(0xEB, MANIFEST), False),
        (b"\0\0\0\x18ftypavif" + bytes(12) + b"\0\0\0\x30uuid" + BOX, True),
        (b"\0\0\0\x18ftypavif" + bytes(12) + b"\0\0\0\x30mdat" + BOX, False),
        (b"RIFF....WEBPc2pa", False),
        (b"", False),
    ],
)
def test_where_a_manifest_stands(head: bytes, expected: bool) -> None:
    assert has_c2pa(head) is expected


@given(st.sampled_from([PNG, b"\xff\xd8", b"\0\0\0\x18ftyp", b""]), st.binary(max_size=200))
@example(b"\xff\xd8", b"\xff\xeb\0\0c2pa")
@example(b"\0\0\0\0ftyp", bytes(30))
def test_any_bytes(start: bytes, rest: bytes) -> None:
    assert has_c2pa(start + rest + b"c2pa") in (True, False)
