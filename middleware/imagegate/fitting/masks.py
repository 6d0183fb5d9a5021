"""Masks in the other polarity: transparent pixels become white on black. Needs Pillow (``imagegate[masks]``)."""

from __future__ import annotations

import io

from imagegate.errors import ImagegateError, RequestError


def white_on_black(mask: bytes) -> bytes:
    """A PNG with alpha as a grey PNG in which what was transparent is white, what was opaque black.

    Takes time in proportion to the pixels, so it is not for the event loop.

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
    converted = io.BytesIO()
    ImageChops.invert(alpha).save(converted, "PNG")
    return converted.getvalue()
