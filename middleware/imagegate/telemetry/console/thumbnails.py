"""Small pictures for the console. Pillow makes them where it is installed; else small originals are shown."""

from __future__ import annotations

import io
from typing import Final, NamedTuple

from imagegate.protocol.image_format import SVG, inspect

EDGE: Final = 512
"""Pixels, the longer one."""
LARGEST_ORIGINAL: Final = 2 * 1024**2
"""Bytes of a picture that is shown as it is."""
_MOST_PIXELS: Final = 64_000_000


class Thumbnail(NamedTuple):
    """A picture that a browser can show."""

    content: bytes
    media_type: str


def thumbnail(picture: bytes) -> Thumbnail | None:
    """Return a small version of `picture`; None: it cannot be shown.

    Takes time in proportion to the pixels, so it is not for the event loop.
    """
    facts = inspect(picture[: 64 * 1024])
    if facts is None or facts.kind is SVG or facts.width * facts.height > _MOST_PIXELS:
        return None
    original = Thumbnail(picture, facts.kind.media_type) if len(picture) <= LARGEST_ORIGINAL else None
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        return original
    small = io.BytesIO()
    try:
        with Image.open(io.BytesIO(picture), formats=("PNG", "JPEG", "WEBP", "GIF")) as image:
            image.draft("RGB", (EDGE, EDGE))
            image.thumbnail((EDGE, EDGE))
            converted = image if image.mode in ("RGB", "RGBA") else image.convert("RGBA")
            converted.save(small, "WEBP", quality=82, method=2)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return original
    return Thumbnail(small.getvalue(), "image/webp")
