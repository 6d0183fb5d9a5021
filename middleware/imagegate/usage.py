"""Token counts of providers' replies: added up, and told by kind. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

TokenKind = Literal["input_text", "input_image", "input_cached", "input", "output_text", "output_image", "output"]
"""``input`` and ``output`` are what a reply does not divide further; no token is in two kinds."""

TOKEN_KINDS: Final[tuple[TokenKind, ...]] = (
    "input_text",
    "input_image",
    "input_cached",
    "input",
    "output_text",
    "output_image",
    "output",
)
# The Images API says input and output, chat completions (and gateways made for them) prompt and completion.
_SIDES: Final = (
    (("input_tokens", "prompt_tokens"), ("input_tokens_details", "prompt_tokens_details"), "input"),
    (("output_tokens", "completion_tokens"), ("output_tokens_details", "completion_tokens_details"), "output"),
)
_MOST: Final = 10**12


def sum_usage(usages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Several replies' usage as one: numbers are added, other members are the first's."""
    total: dict[str, Any] = {}
    for usage in usages:
        for name, value in usage.items():
            before = total.get(name)
            if isinstance(value, Mapping):
                total[name] = sum_usage([before, value]) if isinstance(before, Mapping) else dict(value)
            elif isinstance(value, (int, float)) and isinstance(before, (int, float)):
                total[name] = before + value
            elif before is None:
                total[name] = value
    return total


def tokens_by_kind(usage: Mapping[str, Any] | None) -> dict[TokenKind, int]:
    """Tokens by kind, none counted twice; what is no whole number or negative is left out.

    Cached tokens are taken off the input text: providers that cache do so with prompts.
    """
    found: dict[TokenKind, int] = {}
    if usage is None:
        return found
    for names, detail_names, side in _SIDES:
        total = next((count for name in names if (count := _count(usage.get(name)))), 0)
        details = next((value for name in detail_names if isinstance(value := usage.get(name), Mapping)), {})
        text, image = _count(details.get("text_tokens")), _count(details.get("image_tokens"))
        cached = _count(details.get("cached_tokens")) if side == "input" else 0
        cached = min(cached, text or total)
        rest = max(0, total - text - image - (0 if text else cached))
        parts = {f"{side}_text": text - cached if text else 0, f"{side}_image": image, side: rest}
        if cached:
            parts["input_cached"] = cached
        found |= {kind: parts[kind] for kind in TOKEN_KINDS if parts.get(kind)}
    return found


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < _MOST else 0
