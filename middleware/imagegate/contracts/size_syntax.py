"""The spellings of an image size, and what they mean.

A size is asked for as pixels (``1024x1024``), as a ratio (``16:9``), as a resolution tier (``2K``) or as ``auto``.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from typing import Final, NamedTuple

MAX_SIZE_LENGTH: Final = 64
"""Characters. Longer text is refused before anything is parsed."""
_PIXELS = re.compile(r"([0-9]{1,6}) ?[xX*×] ?([0-9]{1,6})")
_RATIO = re.compile(r"([0-9]{1,4}(?:\.[0-9]{1,3})?) ?: ?([0-9]{1,4}(?:\.[0-9]{1,3})?)")
_TIER = re.compile(r"([0-9]{1,2}(?:\.[0-9])?)[kK]|(512|768)(?:px|sq)?")
SMALLEST_PIXEL_EDGE: Final = 64
"""``16x9`` is a ratio in some dialects: two edges that are both below this are read as one."""


class SizeSyntaxError(ValueError):
    """The text is no size in any spelling; the message says which spellings are read."""


class Pixels(NamedTuple):
    """An exact size in pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"

    @property
    def area(self) -> int:
        return self.width * self.height


class Ratio(NamedTuple):
    """Width to height, in the client's own numbers (``19.5:9``)."""

    width: float
    height: float

    def __str__(self) -> str:
        return f"{_plain(self.width)}:{_plain(self.height)}"


def _plain(number: float) -> str:
    """Write at most three decimals, as sizes are read, and no exponent."""
    return f"{number:.3f}".rstrip("0").rstrip(".")


class Tier(NamedTuple):
    """A resolution tier by its nominal edge in pixels: ``1K`` is 1024."""

    edge: float

    def __str__(self) -> str:
        return f"{self.edge / 1024:g}K" if self.edge >= 1024 else f"{self.edge:g}"


class Auto(NamedTuple):
    """The model may choose."""

    def __str__(self) -> str:
        return "auto"


Size = Pixels | Ratio | Tier | Auto


@lru_cache(maxsize=1024)
def parse_size(text: str) -> Size:
    """Read ``1024x1024`` (``X``, ``*``, ``×``, spaces), ``16:9``, ``19.5:9``, ``2K``, ``512`` or ``auto``.

    Raises:
        SizeSyntaxError: the text is in no such form, or longer than `MAX_SIZE_LENGTH`.
    """
    if len(text) > MAX_SIZE_LENGTH:
        raise SizeSyntaxError(f"A size has at most {MAX_SIZE_LENGTH} characters.")
    stripped = text.strip(" ")
    if stripped.lower() == "auto":
        return Auto()
    if found := _PIXELS.fullmatch(stripped):
        width, height = int(found[1]), int(found[2])
        if width and height:
            small = width < SMALLEST_PIXEL_EDGE and height < SMALLEST_PIXEL_EDGE
            return Ratio(width, height) if small else Pixels(width, height)
    elif found := _RATIO.fullmatch(stripped):
        ratio = Ratio(float(found[1]), float(found[2]))
        if ratio.width and ratio.height:
            return ratio
    elif found := _TIER.fullmatch(stripped):
        edge = float(found[1]) * 1024 if found[1] else float(found[2])
        if edge:
            return Tier(edge)
    raise SizeSyntaxError(
        "Expected WIDTHxHEIGHT, for example '1024x1024', a ratio such as '16:9', a tier such as '2K', or 'auto'."
    )


def in_whole_numbers(ratio: Ratio, most: float) -> str | None:
    """Return the ratio without decimals: ``19.5:9`` is ``13:6``. None: it is beyond `most`, or cannot be read."""
    sides = [Fraction(_plain(side)) for side in ratio]
    shape = sides[0] / sides[1]
    if max(shape, 1 / shape) > most:
        return None
    if all(side.denominator == 1 for side in sides):
        return str(ratio)
    word = f"{shape.numerator}:{shape.denominator}"
    return word if _RATIO.fullmatch(word) else None
