"""What images are charged by beside their number: megapixels, steps and references. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from imagegate.contracts.contract import Contract
from imagegate.contracts.size_syntax import Pixels, SizeSyntaxError, parse_size
from imagegate.contracts.sizes import FlexibleRule, ListRule, SizeRule

NO_FIELDS: Final[Mapping[str, Any]] = {}
STEP_MEMBERS: Final = ("num_inference_steps", "steps")
"""What models call the number of their steps."""
_SIZE_MEMBERS: Final = ("size", "image_size")
MOST_STEPS: Final = 10_000
_LONGEST_EDGE: Final = 999_999
"""Pixels; no size as text names more."""


class Bounds(NamedTuple):
    """What an image of a model has at most, as far as that is known."""

    area: int | None = None
    """Pixels."""
    steps: int | None = None
    """0: the request cannot choose them."""


def counted(area: float, pixels: int, *, round_up: bool) -> float:
    """Return the megapixels that an area is charged as.

    Args:
        area: in pixels.
        pixels: of a megapixel.
        round_up: whether a part of one counts as a whole one.
    """
    return float(-(-area // pixels)) if round_up else area / pixels


def steps_of(fields: Mapping[str, Any], usual: int) -> int:
    """Return the steps that a request asks for; `usual` where it names none."""
    for name in STEP_MEMBERS:
        value = fields.get(name)
        if type(value) is int and 0 < value <= MOST_STEPS:
            return value
    return usual


def area_of(text: str) -> int | None:
    """Return the pixels of a size; None: it does not name them."""
    try:
        size = parse_size(text)
    except SizeSyntaxError:
        return None
    return size.area if isinstance(size, Pixels) else None


def sent_area(fields: Mapping[str, Any]) -> int | None:
    """Return the pixels that a request asks for; None: it does not name them."""
    for name in _SIZE_MEMBERS:
        value = fields.get(name)
        if isinstance(value, str) and (area := area_of(value)):
            return area
    width, height = fields.get("width"), fields.get("height")
    if type(width) is not int or type(height) is not int:
        return None
    return width * height if min(width, height) > 0 and max(width, height) <= _LONGEST_EDGE else None


def areas_of(images: int, sizes: Sequence[str], fields: Mapping[str, Any]) -> list[int] | None:
    """Return the pixels of each image that was made; None: they are not known.

    An image that was not seen has the size that was asked for, else that of the largest that was seen.

    Args:
        images: how many were made.
        sizes: of those that were seen, as ``1536x1024``.
        fields: of the request as it was sent.
    """
    seen = [area for size in sizes[:images] if (area := area_of(size))]
    if len(seen) < images:
        other = sent_area(fields) or max(seen, default=0)
        if not other:
            return None
        seen += [other] * (images - len(seen))
    return seen


def bounds_of(contract: Contract | None, fields: Mapping[str, Any] = NO_FIELDS) -> Bounds:
    """Return the most that an image of a contract can have.

    Args:
        contract: None: the model has none, so that requests pass as they are.
        fields: of the request, which count where the contract does not bind them.
    """
    if contract is None:
        return Bounds(sent_area(fields), steps_of(fields, 0))
    area = sent_area(fields) if contract.size is None else most_area(contract.size)
    parameter = next((contract.parameters[name] for name in STEP_MEMBERS if name in contract.parameters), None)
    if parameter is not None:
        return Bounds(area, None if parameter.max is None else int(parameter.max))
    return Bounds(area, steps_of(fields, 0) if contract.unknown == "pass" else 0)


def most_area(rule: SizeRule) -> int | None:
    """Return the most pixels of the sizes that a rule allows; None: it does not bind them."""
    match rule:
        case ListRule() if not rule.ratios:
            return max((area for value in rule.values if (area := area_of(value))), default=None)
        case FlexibleRule():
            return min(rule.max_pixels, rule.max_edge**2)
        case _:
            return None
