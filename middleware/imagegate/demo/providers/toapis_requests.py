"""Reads ToAPIs' requests and refuses what its models do not take.

Sources: ToAPIs docs, gpt-image-1.5 image editing (fields, ratios, tiers, formats, references) and its pages of
the other models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from imagegate.demo.providers.common import (
    Fields,
    RefusedError,
    names,
    parse_ratio,
    read_choice,
    read_flag,
    read_integer,
    read_optional_text,
    read_text,
    refuse_unknown,
    wrong_type,
)
from imagegate.demo.providers.gallery import PictureOrder, first_index
from imagegate.demo.providers.pixels import Size, gemini_size, seedream_size, toapis_size
from imagegate.demo.providers.references import check_url, read_url_list
from imagegate.demo.providers.toapis_models import GROK_EDIT, ToApisModel, find_model, gemini_table

NAME: Final = "ToAPIs"
GROK_EDIT_FIELDS: Final = names("model prompt image_urls")
REFERENCE_FIELDS: Final = ("image_urls", "reference_images")


@dataclass(frozen=True, slots=True)
class ToApisCall:
    """A request that ToAPIs accepts."""

    model: str
    orders: tuple[PictureOrder, ...]
    fails_late: bool
    business_id: str | None


def read_generation(fields: Fields) -> ToApisCall:
    """Read a request to /v1/images/generations; references turn it into an edit."""
    name = read_text(fields, "model")
    model = find_model(name)
    if model is None:
        raise RefusedError(f"Model '{name}' is not available.", param="model")
    refuse_unknown(fields, model.fields)
    prompt = read_text(fields, "prompt")
    n = read_integer(fields, "n", 1, model.most_pictures, default=1)
    ratio = _ratio(model, fields)
    tier = _tier(model, fields, ratio)
    read_choice(fields, "quality", ("low", "medium", "high"), default="high")
    image_format = _output_format(fields)
    references = _count_references(model, fields)
    masked = fields.get("mask_url") is not None
    if masked:
        check_url(fields["mask_url"], "mask_url")
        if not references:
            raise RefusedError("mask_url needs image_urls.", param="mask_url")
    width, height = _pixels(name, model, ratio, tier)
    note = f"edit of {references} URL{'s' if references > 1 else ''}" if references else ""
    note += " + mask" if masked else ""
    first = first_index()
    orders = (
        PictureOrder(NAME, name, prompt, width, height, first + index, image_format, note=note) for index in range(n)
    )
    return ToApisCall(name, tuple(orders), model.fails_late, read_optional_text(fields, "client_business_id"))


def read_grok_edit(fields: Fields) -> ToApisCall:
    """Read a request to /v1/images/edits, which only grok-imagine-1.0-edit takes."""
    name = read_text(fields, "model")
    if name != GROK_EDIT:
        message = f"Model '{name}' is not edited here. Send image_urls to /v1/images/generations."
        raise RefusedError(message, param="model")
    refuse_unknown(fields, GROK_EDIT_FIELDS)
    prompt = read_text(fields, "prompt")
    references = len(read_url_list(fields, "image_urls"))
    if not references:
        raise RefusedError("image_urls is required.", param="image_urls")
    note = f"edit of {references} URL{'s' if references > 1 else ''}"
    return ToApisCall(name, (PictureOrder(NAME, name, prompt, 1024, 1024, note=note),), True, None)


def _ratio(model: ToApisModel, fields: Fields) -> str:
    """Read `size`, which is a ratio at ToAPIs; pixels are refused."""
    size = read_optional_text(fields, "size")
    if size is None:
        return "1:1"
    if size in model.ratios:
        return size
    ratio = parse_ratio(size)
    if model.any_ratio and ratio is not None and 1 / 3 <= ratio <= 3 and "." not in size:
        return size
    raise RefusedError(f"Invalid size '{size}'. Supported: {', '.join(model.ratios)}.", param="size")


def _tier(model: ToApisModel, fields: Fields, ratio: str) -> str:
    if model.tier_in_metadata:
        return _metadata_tier(model, fields)
    tier = read_choice(fields, "resolution", model.tiers, default=model.tiers[0])
    allowed = (model.limited_tiers or {}).get(tier)
    if allowed is not None and ratio not in allowed and ratio != "auto":
        message = f"Resolution {tier} does not support size {ratio}. Supported: {', '.join(sorted(allowed))}."
        raise RefusedError(message, param="resolution")
    return tier


def _metadata_tier(model: ToApisModel, fields: Fields) -> str:
    metadata = fields.get("metadata")
    read_flag(fields, "watermark")
    if metadata is None:
        return model.tiers[0]
    if not isinstance(metadata, dict):
        raise wrong_type("metadata", "an object", metadata)
    for name in metadata:
        if name != "resolution":
            raise RefusedError(f"Unknown parameter: 'metadata.{name}'.", param=f"metadata.{name}")
    tier = metadata.get("resolution", model.tiers[0])
    if tier not in model.tiers:
        message = f"Invalid metadata.resolution '{tier}'. Supported: {', '.join(model.tiers)}."
        raise RefusedError(message, param="metadata.resolution")
    return str(tier)


def _output_format(fields: Fields) -> str:
    """Read png or jpeg, never webp (Azure behind it has none); compression goes with jpeg only."""
    image_format = read_choice(fields, "output_format", ("png", "jpeg"), default="png")
    read_integer(fields, "output_compression", 0, 100, default=100)
    if fields.get("output_compression") is not None and image_format != "jpeg":
        message = "output_compression is only supported when output_format is jpeg."
        raise RefusedError(message, param="output_compression")
    return image_format


def _count_references(model: ToApisModel, fields: Fields) -> int:
    given = [name for name in REFERENCE_FIELDS if fields.get(name) is not None]
    if len(given) > 1:
        raise RefusedError("Send either image_urls or reference_images.", param="reference_images")
    count = sum(len(read_url_list(fields, name)) for name in given)
    if count > model.most_references:
        message = f"Too many reference images: at most {model.most_references}."
        raise RefusedError(message, param=given[0])
    return count


def _pixels(name: str, model: ToApisModel, ratio: str, tier: str) -> Size:
    if ratio == "auto":
        allowed = (model.limited_tiers or {}).get(tier)
        ratio = "1:1" if allowed is None or "1:1" in allowed else "16:9"
    if name.startswith("gemini-"):
        return gemini_size(gemini_table(name), ratio, tier)
    if name.startswith("seedream-"):
        return seedream_size(ratio, tier)
    return toapis_size(ratio, tier)
