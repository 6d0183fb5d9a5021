"""How large the pictures of ratio-and-tier models are, in pixels, as their makers publish it.

Sources: Google's image generation page (2026-09) for the Gemini tables, ToAPIs docs for gpt-image-2-official,
Volcengine docs for Seedream 4.5. xAI publishes nothing: about 1 and 4 megapixels were seen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from imagegate.demo.providers.common import GRID, LONGEST_EDGE, parse_ratio

Size = tuple[int, int]

GEMINI_25: Final[Mapping[str, Size]] = {
    "1:1": (1024, 1024),
    "2:3": (832, 1248),
    "3:2": (1248, 832),
    "3:4": (864, 1184),
    "4:3": (1184, 864),
    "4:5": (896, 1152),
    "5:4": (1152, 896),
    "9:16": (768, 1344),
    "16:9": (1344, 768),
    "21:9": (1536, 672),
}
"""gemini-2.5-flash-image, which has no tiers."""

GEMINI_3_PRO: Final[Mapping[str, Size]] = {
    "1:1": (1024, 1024),
    "2:3": (848, 1264),
    "3:2": (1264, 848),
    "3:4": (896, 1200),
    "4:3": (1200, 896),
    "4:5": (928, 1152),
    "5:4": (1152, 928),
    "9:16": (768, 1376),
    "16:9": (1376, 768),
    "21:9": (1584, 672),
}
"""gemini-3-pro-image at 1K. 2K and 4K are exactly two and four times as wide and high."""

GEMINI_31_FLASH: Final[Mapping[str, Size]] = {
    **GEMINI_3_PRO,
    "1:4": (512, 2048),
    "4:1": (2048, 512),
    "1:8": (384, 3072),
    "8:1": (3072, 384),
}
"""gemini-3.1-flash-image at 1K, with the same factors."""

TIER_FACTORS: Final = {"1k": 1, "2k": 2, "4k": 4}


def _ratios(text: str) -> tuple[str, ...]:
    return tuple(text.split())


XAI_RATIOS: Final = _ratios("1:1 16:9 9:16 4:3 3:4 3:2 2:3 2:1 1:2 19.5:9 9:19.5 20:9 9:20")
TOAPIS_RATIOS: Final = _ratios("1:1 3:2 2:3 4:3 3:4 5:4 4:5 16:9 9:16 2:1 1:2 21:9 9:21")
SEEDREAM_RATIOS: Final = _ratios("1:1 4:3 3:4 16:9 9:16 3:2 2:3 21:9 9:21")

_TOAPIS_LANDSCAPE: Final[Mapping[str, tuple[Size, Size, Size]]] = {
    "1:1": ((1024, 1024), (2048, 2048), (2880, 2880)),
    "3:2": ((1536, 1024), (2048, 1360), (3520, 2336)),
    "4:3": ((1024, 768), (2048, 1536), (3312, 2480)),
    "5:4": ((1280, 1024), (2560, 2048), (3216, 2576)),
    "16:9": ((1536, 864), (2048, 1152), (3840, 2160)),
    "2:1": ((2048, 1024), (2688, 1344), (3840, 1920)),
    "21:9": ((2016, 864), (2688, 1152), (3840, 1648)),
}
_SEEDREAM_LANDSCAPE: Final[Mapping[str, tuple[Size, Size]]] = {
    "1:1": ((2048, 2048), (4096, 4096)),
    "4:3": ((2304, 1728), (4704, 3520)),
    "16:9": ((2848, 1600), (5504, 3040)),
    "3:2": ((2496, 1664), (4992, 3328)),
    "21:9": ((3136, 1344), (6240, 2656)),
}
_FREE_RATIO_AREAS: Final = {"1k": 1_048_576, "2k": 3_145_728, "4k": 8_294_400}
"""Areas that give both sizes seen for other ratios than ToAPIs lists: 7:4 at 1k, 1:3 at 2k."""


def gemini_size(table: Mapping[str, Size], ratio: str, tier: str) -> Size:
    """Pixels of a Gemini model; `tier` is 1k, 2k or 4k in either case."""
    factor = TIER_FACTORS[tier.lower()]
    width, height = table[ratio]
    return width * factor, height * factor


def grok_size(ratio: str, tier: str) -> Size:
    """About 1 megapixel at 1k and 4 at 2k, on the grid of 16 pixels."""
    return _of_area(1_048_576 if tier == "1k" else 4_194_304, parse_ratio(ratio) or 1.0)


def seedream_size(ratio: str, tier: str) -> Size:
    """Pixels of Seedream 4.5 at 2K or 4K."""
    return _flipped(_SEEDREAM_LANDSCAPE, ratio)[("2k", "4k").index(tier.lower())]


def toapis_size(ratio: str, tier: str) -> Size:
    """Pixels of the GPT image models at ToAPIs: its table, or the nearest exact size for another ratio."""
    if ratio in TOAPIS_RATIOS:
        return _flipped(_TOAPIS_LANDSCAPE, ratio)[("1k", "2k", "4k").index(tier)]
    return _of_exact_ratio(_FREE_RATIO_AREAS[tier], ratio)


def _flipped(landscapes: Mapping[str, tuple[Size, ...]], ratio: str) -> tuple[Size, ...]:
    """Return the row of a ratio; portrait rows mirror the landscape ones in every published table."""
    if ratio in landscapes:
        return landscapes[ratio]
    long, _, short = ratio.partition(":")
    return tuple((height, width) for width, height in landscapes[f"{short}:{long}"])


def _of_area(area: int, ratio: float) -> Size:
    width, height = math.sqrt(area * ratio), math.sqrt(area / ratio)
    return max(GRID, round(width / GRID) * GRID), max(GRID, round(height / GRID) * GRID)


def _of_exact_ratio(area: int, ratio: str) -> Size:
    left, _, right = ratio.partition(":")
    divisor = math.gcd(int(left), int(right))
    step_x, step_y = int(left) // divisor * GRID, int(right) // divisor * GRID
    steps = max(1, round(math.sqrt(area / (step_x * step_y))))
    steps = min(steps, max(1, LONGEST_EDGE // max(step_x, step_y)))
    return step_x * steps, step_y * steps
