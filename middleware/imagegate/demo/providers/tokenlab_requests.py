"""Reads TokenLab's generation requests and refuses what its models do not take.

Sources: TokenLab docs, image generation, and TokenLab's OpenAPI file (fields, limits); OpenAI's measured
answers for gpt-image-2's sizes, xAI's for `size`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final

from imagegate.demo.providers.common import (
    Fields,
    RefusedError,
    missing_parameter,
    nearest_ratio,
    parse_pixels,
    parse_ratio,
    read_choice,
    read_flag,
    read_integer,
    read_optional_text,
    read_response_format,
    read_text,
    unknown_parameter,
)
from imagegate.demo.providers.incoming import Incoming, UploadedFile, inspect_picture
from imagegate.demo.providers.openai_models import ImageCall, read_call
from imagegate.demo.providers.pixels import Size, gemini_size, grok_size
from imagegate.demo.providers.references import check_url, read_url_list
from imagegate.demo.providers.tokenlab_models import MODELS, REFERENCE_FIELDS, SCHEMA, TokenLabModel

LONGEST_PROMPT: Final = 4000
"""Characters, whatever the model (OpenAPI file)."""

OPERATIONS: Final = ("text-to-image", "image-to-image", "image-edit")
TIER_AREAS: Final = ((2_228_224, "1k"), (5_767_168, "2k"))
"""Pixels up to which a compatibility `size` means a tier; beyond them it means 4k."""


@dataclass(frozen=True, slots=True)
class TokenLabCall:
    """A request that TokenLab accepts: what to draw, and whether to answer with a task."""

    model: str
    call: ImageCall
    as_task: bool
    references: int = 0
    note: str = ""


def read_generation(incoming: Incoming) -> TokenLabCall:
    """Read a request to /v1/images/generations, JSON or form."""
    fields = _with_url_lists(incoming.any_fields()) if incoming.is_form else incoming.json_fields()
    name, model = find_model(fields, default="dall-e-3")
    check_fields(name, model.fields, fields)
    references = _count_references(name, model, fields, incoming.files)
    call = read_picture(name, model, fields, editing=_is_reference_request(fields, references))
    note = f"from {references} reference{'s' if references > 1 else ''}" if references else ""
    return TokenLabCall(name, call, model.always_task or read_flag(fields, "async"), references, note)


def _with_url_lists(fields: dict[str, object]) -> dict[str, object]:
    """Split `image_urls`, which is one comma-separated string in forms (OpenAPI file)."""
    lists = {
        name: [part.strip() for part in text.split(",")]
        for name in ("image_urls", "reference_image_urls")
        if isinstance(text := fields.get(name), str)
    }
    return {**fields, **lists}


def find_model(fields: Fields, *, default: str | None = None) -> tuple[str, TokenLabModel]:
    """Return the model that a request names, with its contract."""
    name = default if default is not None and "model" not in fields else read_text(fields, "model")
    if name not in MODELS:
        alike = [known for known in MODELS if known.startswith(name[:6])][:3]
        extra = {"did_you_mean": alike[0], "suggestions": alike} if alike else {}
        message = f"Model '{name}' was not found."
        raise RefusedError(message, status=404, kind="model_not_found", param="model", extra=extra)
    return name, MODELS[name]


def check_fields(model: str, known: Collection[str], fields: Fields) -> None:
    """Refuse unknown members, members that this model does not accept, and `stream: true`."""
    for name in fields:
        if name in known:
            continue
        if name in ("images", "file_id"):
            message = f"'{name}' is not accepted on /v1/images/generations. Use image_url or image_urls."
            raise RefusedError(message, param=name, code="unsupported_parameter")
        if name == "size" and model.startswith("grok"):
            raise RefusedError("Argument not supported: size", param="size", code="unsupported_parameter")
        if name in SCHEMA:
            message = f"Parameter '{name}' is not supported for model '{model}'."
            raise RefusedError(message, param=name, code="unsupported_parameter")
        raise unknown_parameter(name)
    if read_flag(fields, "stream"):
        message = "stream=true is not supported for images."
        raise RefusedError(message, param="stream", code="unsupported_parameter")


def _count_references(model: str, contract: TokenLabModel, fields: Fields, files: Sequence[UploadedFile]) -> int:
    count = 0
    if fields.get("image_url") is not None:
        check_url(fields["image_url"], "image_url", https_only=True)
        count += 1
    for name in ("image_urls", "reference_image_urls"):
        count += len(read_url_list(fields, name, https_only=True))
    for file in files:
        if file.name != "image" or not contract.fields & REFERENCE_FIELDS:
            message = f"File part '{file.name}' is not supported for model '{model}' on this endpoint."
            raise RefusedError(message, param=file.name, code="unsupported_parameter")
        if inspect_picture(file.data) is None:
            raise RefusedError("The reference is not a readable image.", param="image", code="invalid_image")
        count += 1
    if count > contract.most_references:
        message = f"Too many reference images: at most {contract.most_references} for model '{model}'."
        raise RefusedError(message, param="image_urls", code="too_many_images")
    operation = _operation(fields)
    if count and operation == "text-to-image":
        message = "operation 'text-to-image' does not take reference images."
        raise RefusedError(message, param="operation", code="invalid_value")
    if count and contract.names_operation and operation is None:
        message = "Reference-image requests for this model need operation 'image-to-image'."
        raise RefusedError(message, param="operation", code="missing_required_parameter")
    if not count and operation in OPERATIONS[1:]:
        raise missing_parameter("image_url")
    return count


def _operation(fields: Fields) -> str | None:
    if fields.get("operation") is None:
        return None
    return read_choice(fields, "operation", OPERATIONS, default="text-to-image")


def _is_reference_request(fields: Fields, references: int) -> bool:
    return references > 0 or _operation(fields) in OPERATIONS[1:]


def read_picture(name: str, model: TokenLabModel, fields: Fields, *, editing: bool) -> ImageCall:
    """Read prompt, count, form and size of the pictures, each by the rules of the model's family."""
    prompt = read_text(fields, "prompt", longest=LONGEST_PROMPT)
    response_format = read_response_format(fields, default="url")
    if model.kind == "gpt-image":
        kept = _as_openai_spells(fields)
        return replace(read_call("gpt-image-2", kept), response_format=response_format)
    if name == "dall-e-2":
        return read_call("dall-e-2", fields)
    if name == "dall-e-3":
        return read_call("dall-e-3", fields)
    n = read_integer(fields, "n", 1, 10, default=1)
    read_optional_text(fields, "user")
    width, height = _size(model, fields, editing=editing)
    return ImageCall(name, prompt, n, width, height, "standard", response_format=response_format)


def _as_openai_spells(fields: Fields) -> dict[str, object]:
    """Take `compression` for `output_compression`, and drop `input_fidelity` without a word, as TokenLab does."""
    kept = {name: value for name, value in fields.items() if name != "input_fidelity"}
    if "compression" in kept:
        if "output_compression" in kept:
            message = "Send either compression or output_compression, not both."
            raise RefusedError(message, param="compression", code="invalid_value")
        kept["output_compression"] = kept.pop("compression")
    return kept


def _size(model: TokenLabModel, fields: Fields, *, editing: bool) -> Size:
    if model.kind == "prompt-only":
        return 1024, 1024
    if model.kind == "diffusion":
        return _free_size(fields)
    if editing and model.kind == "gemini" and "resolution" in fields:
        message = "Omit resolution for image-to-image requests."
        raise RefusedError(message, param="resolution", code="unsupported_parameter")
    ratio, tier = _compatible_size(model, fields, editing=editing)
    ratio = _aspect_ratio(model, fields) or ratio
    if model.tiers:
        tier = read_choice(fields, "resolution", model.tiers, default=tier)
    if model.kind == "grok":
        return grok_size("1:1" if ratio == "auto" else ratio, tier)
    return gemini_size(model.sizes, ratio, tier)


def _aspect_ratio(model: TokenLabModel, fields: Fields) -> str | None:
    ratio = read_optional_text(fields, "aspect_ratio")
    if ratio is not None and ratio not in model.ratios:
        message = f"Invalid aspect_ratio '{ratio}'. Allowed values: {', '.join(model.ratios)}."
        extra = {"allowed_aspect_ratios": list(model.ratios)}
        raise RefusedError(message, param="aspect_ratio", code="invalid_value", extra=extra)
    return ratio


def _compatible_size(model: TokenLabModel, fields: Fields, *, editing: bool) -> tuple[str, str]:
    """Ratio and tier of a `size`, which the Gemini families take as an alias; 1:1 and 1k without one."""
    text = read_optional_text(fields, "size")
    if text is None or text == "auto":
        return "1:1", "1k"
    pixels = parse_pixels(text)
    if pixels is None:
        raise RefusedError(f"Invalid size '{text}'. Expected WIDTHxHEIGHT.", param="size", code="invalid_value")
    area = pixels[0] * pixels[1]
    tier = next((tier for limit, tier in TIER_AREAS if area <= limit), "4k")
    return nearest_ratio(*pixels, model.ratios), tier if model.tiers and not editing else "1k"


def _free_size(fields: Fields) -> Size:
    """Models without a documented list: a ratio up to 3:1, or sides from 256 to 2048 pixels."""
    ratio_text = read_optional_text(fields, "aspect_ratio")
    size_text = read_optional_text(fields, "size")
    if ratio_text is not None:
        ratio = parse_ratio(ratio_text)
        if ratio is None or not 1 / 3 <= ratio <= 3:
            message = f"Invalid aspect_ratio '{ratio_text}'."
            raise RefusedError(message, param="aspect_ratio", code="invalid_value")
        return grok_size(ratio_text, "1k")
    if size_text is None or size_text == "auto":
        return 1024, 1024
    pixels = parse_pixels(size_text)
    if pixels is None or not all(256 <= side <= 2048 for side in pixels):
        message = f"Invalid size '{size_text}'. Expected WIDTHxHEIGHT with sides from 256 to 2048."
        raise RefusedError(message, param="size", code="invalid_value")
    return pixels
