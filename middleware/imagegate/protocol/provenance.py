"""Whether an image carries a C2PA manifest, by the first bytes of its file. Pure.

Source: C2PA Technical Specification 2.2, A.3 (embedding manifests): a ``caBX`` chunk before the pixels of a PNG, APP11
segments of a JPEG, a ``uuid`` box of formats on ISO 14496-12. A WebP has its chunk behind the pixels, where a head does
not reach.
"""

from __future__ import annotations

from typing import Final

_LABEL: Final = b"c2pa"
_BOX: Final = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
_APP11: Final = 0xEB
_START_OF_SCAN: Final = 0xDA


def has_c2pa(head: bytes) -> bool:
    """Return whether a file that begins with `head` has a manifest, as far as its head tells. 64 KiB are enough."""
    if head.startswith((b"\x89PNG", b"\xff\xd8")):
        if _LABEL not in head and b"caBX" not in head:
            return False
        return _in_png(head) if head[0] == 0x89 else _in_jpeg(head)
    return head[4:8] == b"ftyp" and _in_boxes(head)


def _in_png(head: bytes) -> bool:
    place = 8
    while place + 8 <= len(head):
        name = head[place + 4 : place + 8]
        if name in (b"caBX", b"IDAT"):
            return name == b"caBX"
        place += 12 + int.from_bytes(head[place : place + 4])
    return False


def _in_jpeg(head: bytes) -> bool:
    place = 2
    while place + 4 <= len(head) and head[place] == 0xFF and head[place + 1] != _START_OF_SCAN:
        length = int.from_bytes(head[place + 2 : place + 4])
        if head[place + 1] == _APP11 and _LABEL in head[place : place + 2 + length]:
            return True
        place += 2 + max(length, 2)
    return False


def _in_boxes(head: bytes) -> bool:
    place = 0
    while place + 24 <= len(head):
        size = int.from_bytes(head[place : place + 4])
        if head[place + 4 : place + 8] == b"uuid" and head[place + 8 : place + 24] == _BOX:
            return True
        if size < 8:  # to the end of the file, or a large box, which holds the pixels
            return False
        place += size
    return False
