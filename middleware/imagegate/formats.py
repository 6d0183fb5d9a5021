"""Image formats by their first bytes, whatever a header says."""

from __future__ import annotations

from typing import Final, NamedTuple


class ImageFormat(NamedTuple):
    """A format that the gateway stores and serves."""

    media_type: str
    extension: str


PNG: Final = ImageFormat("image/png", "png")
JPEG: Final = ImageFormat("image/jpeg", "jpg")
WEBP: Final = ImageFormat("image/webp", "webp")
GIF: Final = ImageFormat("image/gif", "gif")
AVIF: Final = ImageFormat("image/avif", "avif")
SVG: Final = ImageFormat("image/svg+xml", "svg")

BY_EXTENSION: Final = {found.extension: found for found in (PNG, JPEG, WEBP, GIF, AVIF, SVG)}


def sniff(head: bytes) -> ImageFormat | None:
    """The format of a picture that begins with `head` (256 bytes are enough); None: no picture that we know."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return PNG
    if head.startswith(b"\xff\xd8\xff"):
        return JPEG
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return WEBP
    if head.startswith((b"GIF87a", b"GIF89a")):
        return GIF
    if head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis"):
        return AVIF
    text = head[:256].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(b"<svg") or (text.startswith(b"<?xml") and b"<svg" in text):
        return SVG
    return None
