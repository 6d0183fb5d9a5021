"""Token counts of providers' replies: summed, and split by kind. Pure."""

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
_MOST: Final = 10**12
_OPENAI_COUNTS: Final[Mapping[str, str]] = {"prompt_tokens": "input_tokens", "completion_tokens": "output_tokens"}


def openai_usage(usage: Mapping[str, Any]) -> dict[str, Any]:
    """Return counts under the names of the Images API, where a provider has those of chat completions."""
    names = {} if usage.keys() & _OPENAI_COUNTS.values() else _OPENAI_COUNTS
    return {names.get(name, name): value for name, value in usage.items()}


def sum_usage(usages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the sum of several replies' usage: numbers are added, other members are the first's."""
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
    """Return tokens by kind, none counted twice; what is no whole number or negative is left out.

    Cached tokens are taken off the input text: providers that cache do so with prompts.
    """
    found: dict[TokenKind, int] = {}
    if usage is None:
        return found
    total, text, image, cached = _side(usage, "input_tokens", "prompt_tokens")
    cached = min(cached, text or total)
    if text > cached:
        found["input_text"] = text - cached
    if image:
        found["input_image"] = image
    if cached:
        found["input_cached"] = cached
    if (rest := total - text - image - (0 if text else cached)) > 0:
        found["input"] = rest
    total, text, image, _ = _side(usage, "output_tokens", "completion_tokens")
    if text:
        found["output_text"] = text
    if image:
        found["output_image"] = image
    if (rest := total - text - image) > 0:
        found["output"] = rest
    return found


def _side(usage: Mapping[str, Any], name: str, other: str) -> tuple[int, int, int, int]:
    """Return total, text, image and cached tokens; others than the Images API say prompt and completion."""
    if name not in usage and other in usage:
        name = other
    details = usage.get(f"{name}_details")
    if not isinstance(details, Mapping) or not details:
        return _count(usage.get(name)), 0, 0, 0
    get = details.get
    return (
        _count(usage.get(name)),
        _count(get("text_tokens")),
        _count(get("image_tokens")),
        _count(get("cached_tokens")),
    )


def _count(value: Any) -> int:
    return value if type(value) is int and 0 < value < _MOST else 0
