"""Sizes as a few classes, for metrics. Pure."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from imagegate.contracts.sizes import Auto, Pixels, Ratio, SizeSyntaxError, Tier, parse_size, tier_of_area

_SQUARE_WITHIN: Final = 0.02
"""Of the ratio: 1024x1008 is a square to the eye."""


@lru_cache(1024)
def size_class(text: str) -> str:
    """``landscape_2k`` of pixels, ``landscape`` of a ratio, ``2k`` of a tier, ``auto``, ``none``, or ``other``.

    At most about thirty values, whatever clients write: tiers are 512, 1k, 2k and 4k, others are the nearest of them.
    """
    if not text:
        return "none"
    try:
        size = parse_size(text)
    except SizeSyntaxError:
        return "other"
    if isinstance(size, Auto):
        return "auto"
    if isinstance(size, Pixels):
        return f"{_shape(size.width, size.height)}_{_tier(size.area)}"
    if isinstance(size, Ratio):
        return _shape(size.width, size.height)
    return _tier_word(size)


def _shape(width: float, height: float) -> str:
    if abs(width / height - 1) <= _SQUARE_WITHIN:
        return "square"
    return "landscape" if width > height else "portrait"


def _tier(area: float) -> str:
    return _tier_word(tier_of_area(area))


def _tier_word(tier: Tier) -> str:
    return str(tier_of_area(tier.edge**2)).lower()
