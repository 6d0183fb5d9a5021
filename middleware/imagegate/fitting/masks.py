"""Masks in black and white, for what clients mark by transparency. Needs Pillow (``imagegate[masks]``)."""

from __future__ import annotations

import io
from typing import Literal

from imagegate.errors import ImagegateError, RequestError


def black_and_white(mask: bytes, *, changed: Literal["white", "black"] = "white", two_valued: bool = False) -> bytes:
    """Turn a PNG with alpha into a grey one in which what was transparent has one colour, what was opaque the other.

    Takes time in proportion to the pixels, so it is not for the event loop.

    Args:
        changed: the colour of what was transparent, which is to be changed.
        two_valued: whether there is no grey: more than half transparent counts as transparent.

    Raises:
        RequestError: the mask cannot be read, or has more than 32 million pixels.
        ImagegateError: Pillow is not installed.
    """
    try:
        from PIL import Image, ImageChops, UnidentifiedImageError
    except ImportError:
        raise ImagegateError("This model needs masks in another form than the gateway can make.", status=501) from None
    try:
        with Image.open(io.BytesIO(mask), formats=("PNG",)) as image:
            if image.width * image.height > 32_000_000:
                raise RequestError("The mask has more than 32 million pixels.", param="mask")
            alpha = image.convert("RGBA").getchannel("A")
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise RequestError("The mask cannot be read.", param="mask", code="invalid_image_file") from None
    if two_valued:
        alpha = alpha.point([0] * 128 + [255] * 128)
    converted = io.BytesIO()
    (ImageChops.invert(alpha) if changed == "white" else alpha).save(converted, "PNG")
    return converted.getvalue()
