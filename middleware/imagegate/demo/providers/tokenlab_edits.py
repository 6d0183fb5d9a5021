"""Reads TokenLab's edit requests: JSON with image references, or forms with files.

Sources: TokenLab's OpenAPI file (`images`, `mask`, limits; xAI at most 3), TokenLab docs, image generation
(Nano Banana requests never go to /v1/images/edits).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Final

from imagegate.demo.providers.common import (
    Fields,
    RefusedError,
    missing_parameter,
    names,
    read_flag,
    wrong_type,
)
from imagegate.demo.providers.incoming import Incoming, PictureFacts, inspect_picture
from imagegate.demo.providers.references import (
    MOST_REFERENCES,
    check_mask,
    check_url,
    edit_note,
    read_references,
    read_url_list,
)
from imagegate.demo.providers.tokenlab_models import REFERENCE_FIELDS, TokenLabModel
from imagegate.demo.providers.tokenlab_requests import TokenLabCall, check_fields, find_model, read_picture

LONGEST_DATA_URL: Final = 20_971_520
_SOURCES: Final = ("images", "image_urls", "image_url")

Uploads = Mapping[str, bytes]
"""Bytes of the files that came through /v1/files, by id."""


def read_edit(incoming: Incoming, uploads: Uploads) -> TokenLabCall:
    """Read a request to /v1/images/edits. Only gpt-image-2 and the Grok models are edited there."""
    fields = incoming.any_fields()
    name, model = find_model(fields)
    if not model.edits:
        message = f"Model '{name}' does not accept /v1/images/edits. Use /v1/images/generations with "
        message += "operation 'image-to-image' and image_urls."
        raise RefusedError(message, kind="request_shape_channel_mismatch", param="model")
    known = model.fields - REFERENCE_FIELDS - {"operation"}
    if incoming.is_form:
        check_fields(name, known, fields)
        most = min(model.most_references or MOST_REFERENCES, MOST_REFERENCES)
        note = read_references(incoming.files, most=most)
        count = sum(file.name != "mask" for file in incoming.files)
        masked = count < len(incoming.files)
    else:
        count, masked = _read_json_references(name, model, fields, uploads)
        check_fields(name, known | names("image_url image_urls images mask"), fields)
        note = edit_note(count, masked=masked)
    if masked and model.kind != "gpt-image":
        message = f"Parameter 'mask' is not supported for model '{name}'."
        raise RefusedError(message, param="mask", code="unsupported_parameter")
    call = read_picture(name, model, fields, editing=True)
    return TokenLabCall(name, call, read_flag(fields, "async"), count, note)


def _read_json_references(name: str, model: TokenLabModel, fields: Fields, uploads: Uploads) -> tuple[int, bool]:
    """Return how many images there are, and whether a mask came with them."""
    if "image" in fields:
        message = "Unknown parameter: 'image'. For application/json on /v1/images/edits, use 'images' (array)."
        raise RefusedError(message, param="image", code="invalid_value")
    given = [source for source in _SOURCES if fields.get(source) is not None]
    if not given:
        raise missing_parameter("images")
    if len(given) > 1:
        message = f"Send one of images, image_urls and image_url, not {' and '.join(given)}."
        raise RefusedError(message, param=given[1], code="invalid_value")
    first: PictureFacts | None = None
    if given == ["image_url"]:
        first, count = _read_image_url(fields["image_url"], "image_url"), 1
    elif given == ["image_urls"]:
        count = len(read_url_list(fields, "image_urls", https_only=True))
    else:
        facts = _read_images(fields["images"], uploads)
        first, count = (facts[0] if facts else None), len(facts)
    most = model.most_references or MOST_REFERENCES
    if not 1 <= count <= most:
        message = f"Invalid '{given[0]}': expected 1 to {most} images for model '{name}', but got {count}."
        raise RefusedError(message, param=given[0], code="empty_array" if not count else "too_many_images")
    if fields.get("mask") is None:
        return count, False
    data = _read_reference(fields["mask"], "mask", uploads)
    if data is not None and first is not None:
        check_mask(data, first)
    return count, True


def _read_images(value: object, uploads: Uploads) -> list[PictureFacts | None]:
    if not isinstance(value, list):
        raise wrong_type("images", "an array of objects", value)
    facts: list[PictureFacts | None] = []
    for index, item in enumerate(value):
        data = _read_reference(item, f"images[{index}]", uploads)
        facts.append(None if data is None else _readable(data, f"images[{index}]"))
    return facts


def _read_reference(value: object, name: str, uploads: Uploads) -> bytes | None:
    """Return the bytes behind `{image_url}` or `{file_id}`; None for a URL, which a stand-in does not fetch."""
    if not isinstance(value, dict):
        raise wrong_type(name, "an object", value)
    if len(value) != 1 or not value.keys() <= {"image_url", "file_id"}:
        message = f"Invalid '{name}': expected exactly one of image_url and file_id."
        raise RefusedError(message, param=name, code="invalid_value")
    if "image_url" in value:
        return _data_of(value["image_url"], f"{name}.image_url")
    file_id = value["file_id"]
    if not isinstance(file_id, str) or file_id not in uploads:
        message = f"File '{file_id}' was not found."
        raise RefusedError(message, status=404, kind="not_found_error", param=f"{name}.file_id")
    return uploads[file_id]


def _read_image_url(value: object, name: str) -> PictureFacts | None:
    data = _data_of(value, name)
    return None if data is None else _readable(data, name)


def _data_of(value: object, name: str) -> bytes | None:
    """Return the bytes of a data URL; None for a checked https URL."""
    if not isinstance(value, str) or not value.startswith("data:"):
        check_url(value, name, https_only=True)
        return None
    head, _, body = value.partition(",")
    if not head.endswith(";base64") or len(value) > LONGEST_DATA_URL:
        raise RefusedError(f"Invalid '{name}': unusable data URL.", param=name, code="invalid_value")
    try:
        return base64.b64decode(body, validate=True)
    except binascii.Error:
        raise RefusedError(f"Invalid '{name}': not base64.", param=name, code="invalid_base64") from None


def _readable(data: bytes, name: str) -> PictureFacts:
    facts = inspect_picture(data)
    if facts is None:
        message = f"Invalid image file or mode for {name}, please check your image file."
        raise RefusedError(message, param=name, code="invalid_image_file")
    return facts
