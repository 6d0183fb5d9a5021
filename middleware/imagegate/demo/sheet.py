"""A contact sheet: many pictures with their captions on one page."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from PIL import Image, ImageDraw

from imagegate.demo.lettering import TextBlock, font_of, wrap

CELL: Final = 400
"""Width and height of the box that a picture is fitted into, in pixels."""

_GAP: Final = 36
_MARGIN: Final = 56
_CARD_PADDING: Final = 18
_TITLE_SIZE: Final = 26
_LINE_SIZE: Final = 19
_HEADING_SIZE: Final = 44
_PAPER: Final = (243, 244, 248)
_CARD: Final = (255, 255, 255)
_EDGE: Final = (218, 221, 230)
_WELL: Final = (232, 234, 240)
_INK: Final = (24, 27, 38)
_GREY: Final = (92, 98, 116)


@dataclass(frozen=True, slots=True)
class SheetEntry:
    """One picture of a contact sheet: its title, the lines under the title, and the picture's bytes."""

    title: str
    subtitles: tuple[str, ...]
    picture: bytes


@dataclass(frozen=True, slots=True)
class _Card:
    thumbnail: Image.Image | None
    title: TextBlock
    lines: TextBlock

    @property
    def height(self) -> int:
        return 3 * _CARD_PADDING + CELL + self.title.height + self.lines.height


def contact_sheet(entries: Sequence[SheetEntry], *, heading: str = "") -> bytes:
    """Return a PNG with all pictures in a grid, reading order kept; every caption is written in full.

    Rows are as tall as their longest caption, so a long one costs space and never a word.
    """
    cards = [_card(entry) for entry in entries]
    columns = min(5, max(1, math.ceil(math.sqrt(len(cards)))))
    rows = [cards[start : start + columns] for start in range(0, len(cards), columns)]
    card_width = CELL + 2 * _CARD_PADDING
    width = 2 * _MARGIN + columns * card_width + (columns - 1) * _GAP
    title = TextBlock(tuple(wrap(heading, font_of(_HEADING_SIZE), width - 2 * _MARGIN)), _HEADING_SIZE)
    top = _MARGIN + (title.height + _GAP if heading else 0)
    row_heights = [max(card.height for card in row) for row in rows]
    height = top + sum(row_heights) + max(0, len(rows) - 1) * _GAP + _MARGIN
    page = Image.new("RGB", (width, height), _PAPER)
    if heading:
        title.draw(ImageDraw.Draw(page), _MARGIN, _MARGIN, _INK)
    for row, row_height in zip(rows, row_heights, strict=True):
        for column, card in enumerate(row):
            _paste(page, card, _MARGIN + column * (card_width + _GAP), top, row_height)
        top += row_height + _GAP
    buffer = io.BytesIO()
    page.save(buffer, "PNG", compress_level=4)
    return buffer.getvalue()


def _card(entry: SheetEntry) -> _Card:
    title = TextBlock(tuple(wrap(entry.title, font_of(_TITLE_SIZE), CELL)), _TITLE_SIZE)
    lines = TextBlock(tuple(_wrapped(entry.subtitles)), _LINE_SIZE)
    return _Card(_thumbnail(entry.picture), title, lines)


def _wrapped(texts: Sequence[str]) -> Iterator[str]:
    for text in texts:
        yield from wrap(text, font_of(_LINE_SIZE), CELL)


def _thumbnail(data: bytes) -> Image.Image | None:
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.draft("RGB", (CELL, CELL))
            image.thumbnail((CELL, CELL), Image.Resampling.LANCZOS, reducing_gap=2.0)
            return image.convert("RGBA")
    except (OSError, SyntaxError, ValueError):
        return None


def _checkerboard(width: int, height: int) -> Image.Image:
    """Return the usual sign for transparency, laid under pictures that have some."""
    tile = 14
    board = Image.new("RGB", (width, height), (255, 255, 255))
    draw = ImageDraw.Draw(board)
    for y in range(0, height, tile):
        for x in range((y // tile % 2) * tile, width, 2 * tile):
            draw.rectangle((x, y, x + tile - 1, y + tile - 1), fill=(222, 224, 230))
    return board


def _paste(page: Image.Image, card: _Card, left: int, top: int, height: int) -> None:
    draw = ImageDraw.Draw(page)
    right = left + CELL + 2 * _CARD_PADDING
    draw.rounded_rectangle((left, top, right - 1, top + height - 1), radius=14, fill=_CARD, outline=_EDGE)
    x, y = left + _CARD_PADDING, top + _CARD_PADDING
    draw.rectangle((x, y, x + CELL - 1, y + CELL - 1), fill=_WELL)
    if card.thumbnail is None:
        TextBlock(("no readable picture",), _LINE_SIZE).draw(draw, x + 24, y + CELL / 2, _GREY)
    else:
        spot = x + (CELL - card.thumbnail.width) // 2, y + (CELL - card.thumbnail.height) // 2
        page.paste(_checkerboard(*card.thumbnail.size), spot)
        page.paste(card.thumbnail, spot, card.thumbnail)
    y += CELL + _CARD_PADDING
    card.title.draw(draw, x, y, _INK)
    card.lines.draw(draw, x, y + card.title.height, _GREY)
