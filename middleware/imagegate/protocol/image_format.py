"""Image formats, sizes and transparency by a file's first bytes, whatever a header says."""

from __future__ import annotations

import re
import struct
from struct import unpack_from
from typing import Final, NamedTuple

import pybase64

from imagegate.protocol.provenance import has_c2pa


class ImageFormat(NamedTuple):
    """A format that the gateway stores and serves."""

    media_type: str
    extension: str

    @property
    def name(self) -> str:
        """As ``output_format`` spells it: ``png``, ``jpeg``, ``svg``."""
        return self.media_type.partition("/")[2].partition("+")[0]


PNG: Final = ImageFormat("image/png", "png")
JPEG: Final = ImageFormat("image/jpeg", "jpg")
WEBP: Final = ImageFormat("image/webp", "webp")
GIF: Final = ImageFormat("image/gif", "gif")
AVIF: Final = ImageFormat("image/avif", "avif")
SVG: Final = ImageFormat("image/svg+xml", "svg")

_AVIF_BRANDS: Final = frozenset((b"avif", b"avis"))
_MOST_BRANDS: Final = 256
_BLANKS: Final = b"\xef\xbb\xbf \t\r\n"
_PROLOG: Final = re.compile(
    rb"\s*(?:<!--.*?-->|<\?.*?\?>"
    rb"|<!DOCTYPE\s+(?:[\w.-]+:)?svg\b[^>\[]*(?:\[.*?\]\s*)?>)\s*",
    re.DOTALL | re.IGNORECASE,
)
_SVG_ROOT: Final = re.compile(rb"\s*<(?:[\w.-]+:)?svg(?=[\s>/]|$)", re.IGNORECASE)
_URL_SAFE: Final = str.maketrans("-_", "+/")
BY_EXTENSION: Final = {found.extension: found for found in (PNG, JPEG, WEBP, GIF, AVIF, SVG)}


def sniff(head: bytes) -> ImageFormat | None:
    """Return the format of a picture that begins with `head`; None: no picture that we know.

    64 KiB are enough for an SVG behind comments and a document type, 256 bytes for the others.
    """
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return PNG
    if head.startswith(b"\xff\xd8\xff"):
        return JPEG
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return WEBP
    if head.startswith((b"GIF87a", b"GIF89a")):
        return GIF
    if head[4:8] == b"ftyp" and not _AVIF_BRANDS.isdisjoint(_brands(head)):
        return AVIF
    return SVG if _is_svg(head) else None


def _brands(head: bytes) -> set[bytes]:
    """Return the major and the compatible brands of a file type box (ISO 14496-12, section 4.3)."""
    end = min(len(head), int.from_bytes(head[:4]), _MOST_BRANDS)
    return {head[8:12], *(head[start : start + 4] for start in range(16, end - 3, 4))}


def _is_svg(head: bytes) -> bool:
    """Return whether the root of an XML document is ``svg``, behind declarations, comments and a document type."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        head = head.decode("utf-16", "replace").encode()
    if not head.lstrip(_BLANKS).startswith(b"<"):
        return False
    place = len(head) - len(head.lstrip(_BLANKS))  # a mark is no white space
    while (prolog := _PROLOG.match(head, place)) is not None:
        place = prolog.end()
    return _SVG_ROOT.match(head, place) is not None


def holds_picture(head: str) -> bool:
    """Return whether base64 that begins so, in either alphabet, is that of a picture."""
    head = head.translate(_URL_SAFE).rstrip("=")
    try:
        return sniff(pybase64.b64decode(head[: len(head) // 4 * 4], validate=True)) is not None
    except ValueError:
        return False


class Facts(NamedTuple):
    """Facts from an image's header."""

    kind: ImageFormat
    width: int
    """Pixels; 0 where unknown."""
    height: int
    alpha: bool
    """Whether pixels can be transparent."""
    c2pa: bool = False
    """Whether the file says where it comes from (`imagegate.protocol.provenance`)."""


def inspect(head: bytes) -> Facts | None:
    """Return the facts of an image from its `head` (64 KiB suffice for most JPEGs); None: unknown format."""
    kind = sniff(head)
    if kind is None:
        return None
    reader = _READERS.get(kind)
    try:
        width, height, alpha = reader(head) if reader else (0, 0, kind in (AVIF, SVG))
    except (IndexError, ValueError, struct.error):
        width, height, alpha = 0, 0, False
    return Facts(kind, width, height, alpha, has_c2pa(head))


def _png(head: bytes) -> tuple[int, int, bool]:
    """IHDR comes first; a palette's or a key colour's transparency is a chunk before the pixels (PNG 11.3.2)."""
    width, height = unpack_from(">II", head, 16)
    colour = head[25]
    if colour in (4, 6):
        return width, height, True
    place = 33
    while place + 8 <= len(head):
        (length,) = unpack_from(">I", head, place)
        name = head[place + 4 : place + 8]
        if name in (b"tRNS", b"IDAT"):
            return width, height, name == b"tRNS"
        place += 12 + length
    return width, height, False


def _jpeg(head: bytes) -> tuple[int, int, bool]:
    """Return the first start-of-frame marker (ITU T.81 B.2.2)."""
    place = 2
    while place + 9 <= len(head):
        if head[place] != 0xFF:
            break
        marker = head[place + 1]
        if marker == 0xFF:
            place += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = unpack_from(">HH", head, place + 5)
            return width, height, False
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:
            place += 2
            continue
        place += 2 + unpack_from(">H", head, place + 2)[0]
    return 0, 0, False


def _webp(head: bytes) -> tuple[int, int, bool]:
    """Return the three kinds of first chunk (WebP container specification)."""
    chunk = head[12:16]
    if chunk == b"VP8X" and len(head) >= 30:
        return (
            1 + int.from_bytes(head[24:27], "little"),
            1 + int.from_bytes(head[27:30], "little"),
            bool(head[20] & 0x10),
        )
    if chunk == b"VP8L":
        bits = unpack_from("<I", head, 21)[0]
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF), bool(bits >> 28 & 1)
    if chunk != b"VP8 ":
        return 0, 0, False
    width, height = unpack_from("<HH", head, 26)
    return width & 0x3FFF, height & 0x3FFF, False


def _gif(head: bytes) -> tuple[int, int, bool]:
    width, height = unpack_from("<HH", head, 6)
    return width, height, True


_READERS: Final = {PNG: _png, JPEG: _jpeg, WEBP: _webp, GIF: _gif}
