"""OpenAI's own rules for its image models, which every relay passes on: fields, sizes, formats, safety.

Sources: OpenAI image reference and SDK 3.52 (parameters, limits), live answers measured in 2026-08 (wording).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from imagegate.demo.providers.common import (
    FORBIDDEN_WORD,
    INVALID_REQUEST,
    USER_ERROR,
    Fields,
    RefusedError,
    flexible_size,
    listed_size,
    names,
    read_choice,
    read_flag,
    read_integer,
    read_optional_text,
    read_response_format,
    read_text,
)

Family = Literal["dall-e-2", "dall-e-3", "gpt-image-1.5", "gpt-image-2"]

DALL_E_2_SIZES: Final = ("256x256", "512x512", "1024x1024")
DALL_E_3_SIZES: Final = ("1024x1024", "1792x1024", "1024x1792")
GPT_IMAGE_1_SIZES: Final = ("1024x1024", "1024x1536", "1536x1024", "auto")
QUALITIES: Final = ("low", "medium", "high", "auto")
FORMATS: Final = ("png", "jpeg", "webp")

_GPT_IMAGE: Final = names(
    "model prompt n size quality background output_format output_compression moderation stream partial_images"
    " user safety_identifier"
)
GENERATION_FIELDS: Final[dict[Family, frozenset[str]]] = {
    "dall-e-2": names("model prompt n size quality response_format user"),
    "dall-e-3": names("model prompt n size quality style response_format user"),
    "gpt-image-1.5": _GPT_IMAGE,
    "gpt-image-2": _GPT_IMAGE,
}
EDIT_FIELDS: Final[dict[Family, frozenset[str]]] = {
    "dall-e-2": names("model prompt n size response_format user"),
    "dall-e-3": frozenset(),
    "gpt-image-1.5": _GPT_IMAGE | {"input_fidelity"},
    "gpt-image-2": _GPT_IMAGE | {"input_fidelity"},
}
VARIATION_FIELDS: Final = names("model n size response_format user")

LONGEST_PROMPT: Final[dict[Family, int]] = {
    "dall-e-2": 1000,
    "dall-e-3": 4000,
    "gpt-image-1.5": 32_000,
    "gpt-image-2": 32_000,
}


@dataclass(frozen=True, slots=True)
class ImageCall:
    """A request that the model accepts, every default filled in; width and height in pixels."""

    family: str
    """One of `Family`, or the name of another maker's model."""

    prompt: str
    n: int
    width: int
    height: int
    quality: str
    image_format: str = "png"
    background: str = "auto"
    response_format: str = "b64_json"
    stream: bool = False
    partial_images: int = 0

    @property
    def is_gpt_image(self) -> bool:
        """GPT image models answer base64 only, with usage; the DALL-E family answers links by default."""
        return self.family.startswith("gpt-image")


def read_call(family: Family, fields: Fields) -> ImageCall:
    """Check everything but unknown members, in the order in which OpenAI does: prompt, n, the rest."""
    prompt = read_text(fields, "prompt", longest=LONGEST_PROMPT[family])
    read_optional_text(fields, "user")
    if family in ("dall-e-2", "dall-e-3"):
        return _read_dall_e(family, fields, prompt)
    n = read_integer(fields, "n", 1, 10, default=1)
    if family == "gpt-image-2":
        width, height = flexible_size(fields) or (1024, 1024)
    else:
        width, height = listed_size(fields, GPT_IMAGE_1_SIZES, default="1024x1024")
    quality = read_choice(fields, "quality", QUALITIES, default="auto")
    image_format, background = read_output(family, fields)
    read_choice(fields, "moderation", ("low", "auto"), default="auto")
    partial_images = read_integer(fields, "partial_images", 0, 3, default=0)
    if "input_fidelity" in fields:
        _check_fidelity(family, fields)
    stream = read_flag(fields, "stream")
    return ImageCall(
        family,
        prompt,
        n,
        width,
        height,
        quality,
        image_format,
        background,
        stream=stream,
        partial_images=partial_images,
    )


def _read_dall_e(family: Family, fields: Fields, prompt: str) -> ImageCall:
    n = read_integer(fields, "n", 1, 10, default=1)
    if family == "dall-e-3" and n != 1:
        # OpenAI names neither field nor code here (seen in bug reports, 2023-2025).
        raise RefusedError("You must provide n=1 for this model.")
    sizes = DALL_E_3_SIZES if family == "dall-e-3" else DALL_E_2_SIZES
    width, height = listed_size(fields, sizes, default="1024x1024")
    qualities = ("standard", "hd") if family == "dall-e-3" else ("standard",)
    quality = read_choice(fields, "quality", qualities, default="standard")
    read_choice(fields, "style", ("vivid", "natural"), default="vivid")
    response_format = read_response_format(fields, default="url")
    return ImageCall(family, prompt, n, width, height, quality, response_format=response_format)


def read_output(family: Family, fields: Fields) -> tuple[str, str]:
    """Read (output_format, background) of a GPT image model, with the pairs that exclude each other."""
    image_format = read_choice(fields, "output_format", FORMATS, default="png")
    compression = read_integer(fields, "output_compression", 0, 100, default=100)
    if image_format == "png" and compression < 100:
        message = "Compression less than 100 is not supported for PNG output format"
        raise RefusedError(message, kind=USER_ERROR, code="invalid_png_output_compression")
    background = read_choice(fields, "background", ("transparent", "opaque", "auto"), default="auto")
    if background == "transparent" and family == "gpt-image-2":
        message = "Transparent background is not supported for this model."
        raise RefusedError(message, kind=USER_ERROR, param="background", code="invalid_value")
    if background == "transparent" and image_format == "jpeg":
        message = "Transparent background is not supported for JPEG output format."
        raise RefusedError(message, kind=USER_ERROR, param="background", code="invalid_value")
    return image_format, background


def _check_fidelity(family: Family, fields: Fields) -> None:
    read_choice(fields, "input_fidelity", ("high", "low"), default="low")
    if family == "gpt-image-2" and fields["input_fidelity"] is not None:
        message = "The model does not support the 'input_fidelity' parameter."
        raise RefusedError(message, kind=USER_ERROR, param="input_fidelity", code="invalid_input_fidelity_model")


def refuse_unsafe(family: str, prompt: str) -> None:
    """Act as the safety system: `moderation_blocked` by GPT image models, `content_policy_violation` before them."""
    if FORBIDDEN_WORD not in prompt.lower():
        return
    if family.startswith("gpt-image"):
        message = "Your request was rejected by the safety system."
        details = {"moderation_details": {"moderation_stage": "input", "categories": ["demo"]}}
        raise RefusedError(message, kind=USER_ERROR, code="moderation_blocked", extra=details)
    message = "Your request was rejected as a result of our safety system."
    raise RefusedError(message, kind=INVALID_REQUEST, code="content_policy_violation")
