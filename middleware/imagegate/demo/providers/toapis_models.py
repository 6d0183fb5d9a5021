"""What each model family of ToAPIs accepts, and how large its pictures are.

Sources: ToAPIs docs, gpt-image-1.5 image editing (ratios, tiers, pairs, formats) and the pages of the other
models (contracts of gpt-image-2, Gemini and Seedream there).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from imagegate.demo.providers.common import names
from imagegate.demo.providers.pixels import (
    GEMINI_3_PRO,
    GEMINI_25,
    GEMINI_31_FLASH,
    SEEDREAM_RATIOS,
    TOAPIS_RATIOS,
)

_ALWAYS: Final = names("model prompt n size client_business_id")
_GPT: Final = _ALWAYS | names("resolution quality mask_url output_format output_compression")
_EVERY_TIER: Final = ("1k", "2k", "4k")
_WIDE: Final = frozenset(("16:9", "9:16", "2:1", "1:2", "21:9", "9:21"))
"""The six ratios that have a 4k size."""

_BASIC: Final = frozenset(("1:1", "3:2", "2:3"))
"""The three ratios that plain gpt-image-2 makes at 1k."""


@dataclass(frozen=True, slots=True)
class ToApisModel:
    """The contract of one model. Tiers are spelled as ToAPIs spells them, the first is the default."""

    fields: frozenset[str]
    ratios: tuple[str, ...]
    tiers: tuple[str, ...] = _EVERY_TIER
    tier_in_metadata: bool = False
    limited_tiers: Mapping[str, frozenset[str]] | None = None
    """Ratios that a tier is limited to; tiers that are not named have them all."""

    any_ratio: bool = False
    """Takes every `w:h` up to 3:1 besides the listed ones."""

    most_pictures: int = 10
    most_references: int = 16
    fails_late: bool = False
    """Unsafe prompts fail the task; elsewhere they are refused at once."""


_REFERENCES: Final = names("image_urls reference_images")
_AUTO_RATIOS: Final = ("auto", *TOAPIS_RATIOS)

MODELS: Final[Mapping[str, ToApisModel]] = {
    "gpt-image-1.5-official": ToApisModel(_GPT | _REFERENCES, _AUTO_RATIOS, limited_tiers={"4k": _WIDE}),
    "gpt-image-2-official": ToApisModel(_GPT | _REFERENCES, _AUTO_RATIOS, any_ratio=True),
    "gpt-image-2": ToApisModel(_GPT | _REFERENCES, _AUTO_RATIOS, limited_tiers={"1k": _BASIC, "4k": _WIDE}),
    "gpt-image-2-vip": ToApisModel(_GPT | names("reference_images"), TOAPIS_RATIOS),
}
SEEDREAM: Final = ToApisModel(
    _ALWAYS | _REFERENCES | names("metadata watermark"),
    SEEDREAM_RATIOS,
    tiers=("2K", "4K"),
    tier_in_metadata=True,
    most_pictures=15,
    most_references=14,
    fails_late=True,
)
GROK_EDIT: Final = "grok-imagine-1.0-edit"


def gemini_table(name: str) -> Mapping[str, tuple[int, int]]:
    """Return Google's pixel table for one of ToAPIs' Gemini names."""
    if "2.5" in name:
        return GEMINI_25
    return GEMINI_31_FLASH if "3.1" in name else GEMINI_3_PRO


def find_model(name: str) -> ToApisModel | None:
    """Return the contract behind a model name; every `gemini-*` and `seedream-*` name shares its family's."""
    if name.startswith("gemini-"):
        return ToApisModel(
            _ALWAYS | _REFERENCES | names("metadata"),
            tuple(gemini_table(name)),
            tiers=("1K", "2K", "4K"),
            tier_in_metadata=True,
            most_pictures=1,
            most_references=14,
            fails_late=True,
        )
    if name.startswith("seedream-4-5"):
        return SEEDREAM
    return MODELS.get(name)
