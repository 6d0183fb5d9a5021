"""Text on pictures: wrapping and fitting with Pillow's built-in scalable font.

All measures are pixels. The built-in font covers ASCII and little more, so `drawable` first turns what it
lacks into what it has: a picture must never show the empty boxes of missing glyphs.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from PIL import Image, ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Color = tuple[int, int, int] | tuple[int, int, int, int]

LINE_HEIGHT: Final = 1.28
"""Distance between two baselines, in font sizes."""

_SEAMS: Final = ";,/&?"
_MISSING: Final = "\N{MIDDLE DOT}"
_TWINS: Final = {
    "\N{MULTIPLICATION SIGN}": "x",
    "\N{EN DASH}": "-",
    "\N{EM DASH}": "-",
    "\N{BULLET}": _MISSING,
    "\N{RIGHTWARDS ARROW}": "->",
    "\N{LATIN SMALL LETTER SHARP S}": "ss",
    "\N{EURO SIGN}": "EUR",
}


@lru_cache(maxsize=128)
def font_of(size: int) -> Font:
    """Return the built-in font at `size` pixels; parsing it costs more than using it, hence the cache."""
    return ImageFont.load_default(size=max(6, size))


@lru_cache(maxsize=4096)
def _shape(character: str) -> bytes:
    image = Image.new("L", (32, 32))
    ImageDraw.Draw(image).text((4, 4), character, font=font_of(20), fill=255)
    return image.tobytes()


def _has_glyph(character: str) -> bool:
    return _shape(character) != _shape("\U0010ffff")


def _drawable_character(character: str) -> str:
    if character.isspace():
        return " "
    if _has_glyph(character):
        return character
    if character in _TWINS:
        return _TWINS[character]
    plain = "".join(part for part in unicodedata.normalize("NFKD", character) if _has_glyph(part))
    if plain:
        return plain
    return "" if unicodedata.combining(character) or unicodedata.category(character) == "Cf" else _MISSING


def drawable(text: str) -> str:
    """Return the same text with spaces collapsed and only characters that the built-in font can draw."""
    return " ".join("".join(map(_drawable_character, text)).split())


def _break_word(word: str, font: Font, width: float) -> list[str]:
    """Return a word that is wider than a line, cut after punctuation where there is some, else anywhere."""
    pieces: list[str] = []
    piece = ""
    for character in word:
        if piece and font.getlength(piece + character) > width:
            seam = max(map(piece.rfind, _SEAMS)) + 1
            cut = seam if seam > len(piece) // 3 else len(piece)
            pieces.append(piece[:cut])
            piece = piece[cut:]
        piece += character
    return [*pieces, piece]


def wrap(text: str, font: Font, width: float) -> list[str]:
    """Lines of at most `width` pixels, broken at spaces and inside words that are wider than a line."""
    lines: list[str] = []
    line = ""
    for word in drawable(text).split(" "):
        longer = f"{line} {word}" if line else word
        if font.getlength(longer) <= width:
            line = longer
            continue
        if line:
            lines.append(line)
        *full, line = _break_word(word, font, width) if font.getlength(word) > width else [word]
        lines.extend(full)
    return [*lines, line]


@dataclass(frozen=True, slots=True)
class TextBlock:
    """Lines in one font size, ready to be drawn; knows its own width and height in pixels."""

    lines: tuple[str, ...]
    size: int

    @property
    def height(self) -> int:
        return round(len(self.lines) * self.size * LINE_HEIGHT)

    @property
    def width(self) -> int:
        return round(max((font_of(self.size).getlength(line) for line in self.lines), default=0))

    def draw(self, canvas: ImageDraw.ImageDraw, left: float, top: float, color: Color) -> None:
        """Draw with the upper left corner of the block at (left, top)."""
        middle = self.size * LINE_HEIGHT / 2
        for number, line in enumerate(self.lines):
            baseline_box = top + number * self.size * LINE_HEIGHT + middle
            canvas.text((left, baseline_box), line, font=font_of(self.size), fill=color, anchor="lm")


def fit(text: str, *, width: float, height: float, largest: int, smallest: int) -> TextBlock:
    """Return the text in the largest size that fits the box; cut with an ellipsis where even `smallest` does not."""
    size = largest
    while size > smallest:
        block = TextBlock(tuple(wrap(text, font_of(size), width)), size)
        if block.height <= height and block.width <= width:
            return block
        size = min(size - 1, round(size * 0.92))
    return _shorten(wrap(text, font_of(smallest), width), smallest, width=width, height=height)


def _shorten(lines: Sequence[str], size: int, *, width: float, height: float) -> TextBlock:
    room = max(1, int(height / (size * LINE_HEIGHT)))
    if len(lines) <= room:
        return TextBlock(tuple(lines), size)
    last = lines[room - 1]
    while last and font_of(size).getlength(f"{last}...") > width:
        last = last[:-1]
    return TextBlock((*lines[: room - 1], f"{last.rstrip()}..."), size)
