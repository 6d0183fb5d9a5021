"""What providers call ``n``, for clients that were written for one of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

COUNT_MEMBERS: Final = frozenset(
    ("num_images", "num_outputs", "number_of_images", "num_images_per_prompt", "batch_size")
)
_MOST: Final = 10**9
"""More than any provider makes; what is reserved stays a number that every store takes."""


def most_counted(fields: Mapping[str, Any]) -> int:
    """Return the most images that these members may ask for, read as leniently as a provider may; at least 0."""
    return max(_count(fields[name]) for name in COUNT_MEMBERS & fields.keys())


def _count(value: Any) -> int:
    if isinstance(value, str):
        text = value.strip().removeprefix("+").partition(".")[0]
        value = int(text[:18]) if text.isascii() and text.isdecimal() else 0
    return int(min(max(value, 0), _MOST)) if isinstance(value, (int, float)) else 0
