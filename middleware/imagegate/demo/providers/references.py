"""Files and URLs that come with edits and variations, the files checked as OpenAI checks them.

Sources: OpenAI image reference (limits), measured and reported answers (wording), TokModel docs, image
editing (square PNGs with an alpha channel, at most 4 MB).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from imagegate.demo.providers.common import (
    USER_ERROR,
    Fields,
    RefusedError,
    missing_parameter,
    quoted_list,
    wrong_type,
)
from imagegate.demo.providers.incoming import PictureFacts, UploadedFile, inspect_picture

MOST_REFERENCES: Final = 16
FILE_LIMIT: Final = 50_000_000
SMALL_FILE_LIMIT: Final = 4_000_000
"""Bytes that a file must stay below: 50 MB for GPT image models, 4 MB for masks and for dall-e-2."""

_MEDIA_TYPES: Final = {"image/jpeg": "JPEG", "image/png": "PNG", "image/webp": "WEBP"}


def split_files(files: Sequence[UploadedFile]) -> tuple[list[UploadedFile], UploadedFile | None]:
    """Return the images of a form in their order, and its mask. Parts of another name are refused."""
    for file in files:
        if file.name == "images":
            message = "Invalid parameter 'images'. For multipart/form-data use 'image' or 'image[]'."
            raise RefusedError(message, param="images", code="invalid_value")
        if file.name not in ("image", "image[]", "mask"):
            raise RefusedError(f"Unknown parameter: '{file.name}'.", param=file.name, code="unknown_parameter")
    images = [file for file in files if file.name != "mask"]
    masks = [file for file in files if file.name == "mask"]
    if not images:
        raise missing_parameter("image")
    if len(masks) > 1:
        raise RefusedError("Invalid 'mask': expected one file.", param="mask", code="invalid_value")
    return images, masks[0] if masks else None


def read_references(files: Sequence[UploadedFile], *, most: int = MOST_REFERENCES) -> str:
    """Check the files of an edit with a GPT image model; returns the words for the picture's caption."""
    images, mask = split_files(files)
    if len(images) > most:
        message = f"Invalid 'image': too many images. Expected at most {most}, but got {len(images)} instead."
        raise RefusedError(message, param="image", code="array_above_max_length")
    facts = [_read_image(image, number) for number, image in enumerate(images, 1)]
    if mask is not None:
        check_mask(mask.data, facts[0])
    return edit_note(len(images), masked=mask is not None)


def edit_note(images: int, *, masked: bool) -> str:
    """Return the words in the caption of an edited picture."""
    return f"edit of {images} image{'s' if images > 1 else ''}{' + mask' if masked else ''}"


def _read_image(file: UploadedFile, number: int) -> PictureFacts:
    _check_media_type(file, tuple(_MEDIA_TYPES))
    facts = inspect_picture(file.data)
    if facts is None or facts.form not in _MEDIA_TYPES.values() or len(file.data) >= FILE_LIMIT:
        message = f"Invalid image file or mode for image {number}, please check your image file."
        raise RefusedError(message, kind=USER_ERROR, param="", code="invalid_image_file")
    return facts


def _check_media_type(file: UploadedFile, allowed: Sequence[str]) -> None:
    if file.content_type in allowed:
        return
    message = f"Invalid file '{file.name}': unsupported mimetype ('{file.content_type}'). "
    message += f"Supported file formats are {quoted_list(allowed)}."
    raise RefusedError(message, param=file.name, code="unsupported_file_mimetype")


def check_mask(data: bytes, image: PictureFacts) -> None:
    """Require a PNG below 4 MB with alpha, as large as the first image."""
    facts = inspect_picture(data)
    if facts is None or facts.form != "PNG" or len(data) >= SMALL_FILE_LIMIT:
        reason = "mask image must be a PNG and less than 4 MB"
    elif not facts.has_alpha:
        reason = "mask image missing alpha channel"
    elif (facts.width, facts.height) != (image.width, image.height):
        reason = "mask size does not match image size"
    else:
        return
    message = f"Invalid mask image format - {reason}."
    raise RefusedError(message, kind=USER_ERROR, param="mask", code="invalid_mask_image_format")


def read_square_png(files: Sequence[UploadedFile], *, editing: bool) -> tuple[PictureFacts, bool]:
    """Return the one source image that dall-e-2 takes, and whether a mask came with it.

    Both are square PNGs below 4 MB. An edit asks for alpha in both, a variation takes no mask.
    """
    images, mask = split_files(files)
    if len(images) > 1:
        message = "Invalid 'image': too many images. Expected at most 1."
        raise RefusedError(message, param="image", code="array_above_max_length")
    _check_media_type(images[0], ("image/png",))
    facts = inspect_picture(images[0].data)
    if facts is None or facts.form != "PNG" or len(images[0].data) >= SMALL_FILE_LIMIT:
        reason = "Uploaded image must be a PNG and less than 4 MB."
    elif facts.width != facts.height:
        reason = "Uploaded image must be square."
    elif editing and not facts.has_alpha:
        reason = "Invalid input image - format must be in ['RGBA', 'LA', 'L'], got RGB."
    else:
        if mask is not None and not editing:
            raise RefusedError("Unknown parameter: 'mask'.", param="mask", code="unknown_parameter")
        if mask is not None:
            check_mask(mask.data, facts)
        return facts, mask is not None
    raise RefusedError(reason, param="image", code="invalid_image_file")


def check_url(value: object, name: str, *, https_only: bool = False) -> str:
    """Return a reference URL. `https_only` lets http pass for this machine: a local demo has no certificates."""
    if not isinstance(value, str):
        raise wrong_type(name, "a string", value)
    try:
        url = urlsplit(value)
        scheme, host = url.scheme, url.hostname
    except ValueError:
        scheme, host = "", None
    local = host in ("localhost", "127.0.0.1", "::1")
    if host and (scheme == "https" or (scheme == "http" and (local or not https_only))):
        return value
    wanted = "HTTPS" if https_only else "HTTP or HTTPS"
    message = f"Invalid '{name}': expected a public {wanted} image URL."
    raise RefusedError(message, param=name, code="invalid_value")


def read_url_list(fields: Fields, name: str, *, https_only: bool = False) -> list[str]:
    """Return a list of reference URLs, empty where the member is absent or null."""
    value = fields.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise wrong_type(name, "an array of strings", value)
    return [check_url(item, f"{name}[{index}]", https_only=https_only) for index, item in enumerate(value)]
