"""Real pictures without a model: every provider of the demo draws what it was asked for and writes it down.

A picture says who made it, with which model, how large and from which words, so that one look at a reply
shows whether the right request reached the right provider.
"""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from typing import Final

from PIL import Image, ImageChops, ImageDraw

from imagegate.demo.artwork import Rgb, accent, paint
from imagegate.demo.lettering import TextBlock, fit
from imagegate.demo.sheet import SheetEntry, contact_sheet

__all__ = ["SheetEntry", "contact_sheet", "draw_picture"]

_PILLOW_FORMATS: Final = {"png": "PNG", "jpeg": "JPEG", "jpg": "JPEG", "webp": "WEBP"}
_LONGEST_PROMPT: Final = 700
"""Characters of a prompt that are written; an image shows no more, and measuring text takes time."""

_INK: Final = (255, 255, 255, 255)
_PALE_INK: Final = (255, 255, 255, 205)
_PANEL: Final = (10, 12, 22, 178)


def draw_picture(
    *,
    width: int,
    height: int,
    prompt: str,
    provider: str,
    model: str,
    index: int = 0,
    image_format: str = "png",
    transparent: bool = False,
    note: str = "",
) -> bytes:
    """Return a picture of exactly width x height pixels in PNG, JPEG or WEBP, the same bytes for the same arguments.

    `index` distinguishes the images of one request, `note` adds a few words to the caption ("edit of 2
    images"), `transparent` leaves the background out (JPEG has no alpha and keeps it).
    """
    form = _PILLOW_FORMATS[image_format.lower()]
    seed = _seed_of(prompt, provider, index)
    image = paint(width, height, provider=provider, seed=seed, transparent=transparent and form != "JPEG")
    footer = f"{width} x {height}" + (f"  \N{MIDDLE DOT}  {note}" if note else "")
    _write_caption(image, [provider, prompt, model, footer], accent(provider, seed))
    return _encode(image, form)


def _seed_of(prompt: str, provider: str, index: int) -> int:
    digest = hashlib.sha256(f"{provider}\n{index}\n{prompt}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big")


def _encode(image: Image.Image, form: str) -> bytes:
    if form == "PNG":
        return _png(image)
    buffer = io.BytesIO()
    if form == "JPEG":
        image.save(buffer, form, quality=88)
    else:
        image.save(buffer, form, quality=85, method=0)
    return buffer.getvalue()


_UP: Final = b"\x02"
_COLOUR_TYPES: Final = {"RGB": 2, "RGBA": 6}


def _png(image: Image.Image) -> bytes:
    """Encode with the filter Up in all rows, which suits soft colours: Pillow tries five in each, at double cost."""
    width, height = image.size
    above = Image.new(image.mode, image.size)
    above.paste(image, (0, 1))
    differences = ImageChops.subtract_modulo(image, above).tobytes()
    row = width * len(image.getbands())
    rows = b"".join(_UP + differences[start : start + row] for start in range(0, len(differences), row))
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[image.mode], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))
        for kind, data in chunks
    )


def _write_caption(image: Image.Image, texts: list[str], mark: Rgb) -> None:
    """Draw a dark panel with provider, prompt, model and size, which always lies wholly inside the picture."""
    provider, prompt, model, footer = texts
    width, height = image.size
    unit = min(width, height, max(width, height) / 2) / 100
    margin, padding = round(4.5 * unit), round(5 * unit)
    room = width - 2 * (margin + padding)
    tallest = height - 2 * (margin + padding)
    tiny = 10 if min(width, height) >= 160 else 7
    small, medium, large = round(4.6 * unit), round(6.2 * unit), round(8.8 * unit)
    name = fit(provider, width=room, height=tallest * 0.16, largest=medium, smallest=tiny)
    lower = [fit(text, width=room, height=tallest * 0.13, largest=small, smallest=tiny) for text in (model, footer)]
    gap = round(2.4 * unit)
    used = name.height + sum(block.height for block in lower) + 2 * gap
    rest = min(tallest - used, height * 0.6)
    if len(prompt) > _LONGEST_PROMPT:
        prompt = f"{prompt[:_LONGEST_PROMPT]}..."
    words = fit(prompt, width=room, height=rest, largest=large, smallest=max(tiny, small))
    blocks: list[tuple[TextBlock, int]] = [(name, gap), (words, gap), *((block, 0) for block in lower)]
    panel_height = sum(block.height + space for block, space in blocks) + 2 * padding
    top = height - margin - panel_height
    draw = ImageDraw.Draw(image, "RGBA")
    draw.rounded_rectangle((margin, top, width - margin, height - margin), radius=round(3 * unit), fill=_PANEL)
    left, line = margin + padding, top + padding
    draw.rectangle((left - round(3.4 * unit), line, left - round(2.6 * unit), height - margin - padding), fill=mark)
    for (block, space), color in zip(blocks, ((*mark, 255), _INK, _PALE_INK, _PALE_INK), strict=True):
        block.draw(draw, left, line, color)
        line += block.height + space
