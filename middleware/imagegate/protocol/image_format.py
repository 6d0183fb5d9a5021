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
BMP: Final = ImageFormat("image/bmp", "bmp")
TIFF: Final = ImageFormat("image/tiff", "tiff")
HEIC: Final = ImageFormat("image/heic", "heic")
JXL: Final = ImageFormat("image/jxl", "jxl")

_HEIC_BRANDS: Final = frozenset((b"heic", b"heix", b"heim", b"heis"))
_BMP_HEADERS: Final = frozenset((12, 16, 40, 52, 56, 64, 108, 124))
"""Bytes of the second header of a BMP, in all its versions."""
_SHORT: Final = 3
"""Type of a TIFF's number in two bytes."""
_WIDTH, _HEIGHT, _EXTRA_SAMPLES = 256, 257, 338
"""Tags of a TIFF."""
_TIFF_ORDERS: Final = {b"II*\x00": "<", b"MM\x00*": ">"}
_JXL_BOX: Final = b"\x00\x00\x00\x0cJXL \r\n\x87\n"
"""The container of JPEG XL; a bare codestream begins with two bytes that many texts in base64 begin with, too."""
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
BY_EXTENSION: Final = {found.extension: found for found in (PNG, JPEG, WEBP, GIF, AVIF, SVG, BMP, TIFF, HEIC, JXL)}


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
    if head[4:8] == b"ftyp":
        brands = _brands(head)
        return AVIF if not _AVIF_BRANDS.isdisjoint(brands) else None if _HEIC_BRANDS.isdisjoint(brands) else HEIC
    if head[:4] in _TIFF_ORDERS:
        return TIFF
    if head.startswith(b"BM") and len(head) >= 18:
        return BMP if head[6:10] == bytes(4) and unpack_from("<I", head, 14)[0] in _BMP_HEADERS else None
    return JXL if head.startswith(_JXL_BOX) else SVG if _is_svg(head) else None


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
        width, height, alpha = reader(head) if reader else (0, 0, True)
    except (IndexError, ValueError, struct.error):
        width, height, alpha = 0, 0, False
    if not (width and height):
        width = height = 0
    return Facts(kind, width, height, alpha, has_c2pa(head))


def _png(head: bytes) -> tuple[int, int, bool]:
    """Read IHDR, which comes first; a palette's or key colour's transparency comes before the pixels (PNG 11.3.2)."""
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


def _bmp(head: bytes) -> tuple[int, int, bool]:
    """Return what follows the size of the second header; a negative height means rows from the top.

    From its third version on it has a mask for transparency.
    """
    (size,) = unpack_from("<I", head, 14)
    width, height = unpack_from("<HH" if size == 12 else "<II" if size == 16 else "<ii", head, 18)
    alpha = size >= 56 and size != 64 and unpack_from("<I", head, 66)[0] != 0
    return max(width, 0), abs(height), alpha


def _tiff(head: bytes) -> tuple[int, int, bool]:
    """Return what the first directory says (TIFF 6.0, section 2); often it stands at the end of the file."""
    order = _TIFF_ORDERS[head[:4]]
    (place,) = unpack_from(f"{order}I", head, 4)
    (count,) = unpack_from(f"{order}H", head, place)
    found: dict[int, int] = {}
    for entry in range(place + 2, min(place + 2 + 12 * count, len(head) - 11), 12):
        tag, kind = unpack_from(f"{order}HH", head, entry)
        (found[tag],) = unpack_from(f"{order}{'H' if kind == _SHORT else 'I'}", head, entry + 8)
    return found.get(_WIDTH, 0), found.get(_HEIGHT, 0), _EXTRA_SAMPLES in found


_READERS: Final = {PNG: _png, JPEG: _jpeg, WEBP: _webp, GIF: _gif, BMP: _bmp, TIFF: _tiff}
