"""What each model of TokenLab accepts: fields, ratios, tiers, references, and how large its pictures are.

Sources: TokenLab docs, image generation (model behaviour notes, request body) and TokenLab's OpenAPI file;
Google's and xAI's own ratio lists where TokenLab names none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from imagegate.demo.providers.common import names
from imagegate.demo.providers.pixels import GEMINI_3_PRO, GEMINI_25, GEMINI_31_FLASH, XAI_RATIOS, Size

Kind = Literal["gpt-image", "dall-e", "gemini", "prompt-only", "grok", "diffusion"]

_COMMON: Final = names("model prompt n response_format user async stream")
REFERENCE_FIELDS: Final = names("image_url image_urls reference_image_urls")
_GPT_IMAGE: Final = _COMMON | names(
    "size quality background output_format output_compression compression moderation partial_images input_fidelity"
)
_RATIO: Final = names("size aspect_ratio operation") | REFERENCE_FIELDS
_DIFFUSION: Final = _COMMON | _RATIO | names("seed negative_prompt mask_url")

SCHEMA: Final = (
    _GPT_IMAGE | _DIFFUSION | names("resolution style image") | names("operation mask_url seed negative_prompt")
)
"""Every field that TokenLab's schema for generations has, whatever the model."""


@dataclass(frozen=True, slots=True)
class TokenLabModel:
    """The contract of one model. Tiers are spelled as TokenLab spells them, the first is the default."""

    kind: Kind
    fields: frozenset[str]
    ratios: tuple[str, ...] = ()
    tiers: tuple[str, ...] = ()
    sizes: Mapping[str, Size] = field(default_factory=dict[str, Size])
    """Pixels by ratio at the first tier (Gemini only)."""

    most_references: int = 0
    names_operation: bool = False
    """Reference requests must say `operation: "image-to-image"` (the Nano Banana names)."""

    always_task: bool = False
    edits: bool = False
    """Accepted by /v1/images/edits."""


def _gemini(sizes: Mapping[str, Size], *, tiered: bool, named: bool) -> TokenLabModel:
    return TokenLabModel(
        "gemini",
        _COMMON | _RATIO | (names("resolution") if tiered else frozenset()),
        ratios=tuple(sizes),
        tiers=("1k", "2k", "4k") if tiered else (),
        sizes=sizes,
        most_references=16,
        names_operation=named,
    )


_GROK: Final = TokenLabModel(
    "grok",
    _COMMON | REFERENCE_FIELDS | names("aspect_ratio resolution operation"),
    ratios=("auto", *XAI_RATIOS),
    tiers=("1k", "2k"),
    most_references=3,
    edits=True,
)
_TASK: Final = TokenLabModel("diffusion", _DIFFUSION, most_references=16, always_task=True)
_INLINE: Final = TokenLabModel("diffusion", _DIFFUSION, most_references=16)

MODELS: Final[Mapping[str, TokenLabModel]] = {
    "gpt-image-2": TokenLabModel("gpt-image", _GPT_IMAGE, edits=True),
    "gemini-3.1-flash-image-preview": _gemini(GEMINI_31_FLASH, tiered=True, named=False),
    "gemini-3-pro-image-preview": _gemini(GEMINI_3_PRO, tiered=True, named=False),
    "nano-banana-2": _gemini(GEMINI_31_FLASH, tiered=True, named=True),
    "nano-banana-pro": _gemini(GEMINI_3_PRO, tiered=True, named=True),
    "gemini-2.5-flash-image": _gemini(GEMINI_25, tiered=False, named=False),
    "nano-banana": _gemini(GEMINI_25, tiered=False, named=True),
    "nano-banana-edit": _gemini(GEMINI_25, tiered=False, named=True),
    "gemini-2.0-flash-preview-image-generation": TokenLabModel("prompt-only", _COMMON),
    "grok-imagine-image": _GROK,
    "grok-imagine-image-quality": _GROK,
    "grok-imagine-image-pro": _GROK,
    "dall-e-3": TokenLabModel("dall-e", _COMMON | names("size quality style")),
    "dall-e-2": TokenLabModel("dall-e", _COMMON | names("size quality")),
    "flux-pro": _TASK,
    "midjourney": _TASK,
    "ideogram-v3": _TASK,
    "flux-schnell": _INLINE,
    "stable-diffusion-3": _INLINE,
}
RECOMMENDED: Final = ("gpt-image-2", "gemini-3-pro-image-preview", "nano-banana-2", "grok-imagine-image")
