"""The images that a request starts from, as clients write them in JSON. Pure.

Read are OpenAI's ``images: [{image_url | file_id}]`` and ``mask: {...}``, xAI's ``image: {url}``, and the members
``image_url``, ``image_urls``, ``reference_image_urls`` and ``mask_url`` of relays. A URL may be a data URL.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from imagegate.errors import RequestError, type_error
from imagegate.protocol.data_urls import DataURL, DataURLError, InvalidBase64, is_data_url, read_data_url

LIST_MEMBERS: Final = ("images", "image", "image_url", "image_urls", "reference_image_urls", "reference_images")
MASK_MEMBERS: Final = ("mask", "mask_url")
LINK_FIELDS: Final = frozenset((*LIST_MEMBERS, "mask_url"))
"""Members that hold links."""
_MOST: Final = 256
"""References in one member; models take 16 and fewer, which their contracts say."""
MAX_LINK: Final = 8192
"""Characters of a URL that is no data URL."""


class Source(NamedTuple):
    """One reference as written: exactly one of `url` and `file_id`."""

    member: str
    """Its path in the request, for errors: ``images[0].image_url``."""
    url: str | None = None
    file_id: str | None = None


def references_of(fields: Mapping[str, Any]) -> tuple[dict[str, Any], list[Source], Source | None]:
    """Take the references out of a JSON request: other fields, images in order, mask.

    Raises:
        RequestError: naming the member at fault.
    """
    images: list[Source] = []
    for name in LIST_MEMBERS:
        if name in fields:
            images += _sources(name, fields[name])
    masks = [source for name in MASK_MEMBERS if name in fields for source in _sources(name, fields[name])]
    if len(masks) > 1:
        raise RequestError("There can be only one mask.", param="mask")
    rest = {name: value for name, value in fields.items() if name not in LIST_MEMBERS and name not in MASK_MEMBERS}
    return rest, images, masks[0] if masks else None


def count_references(fields: Mapping[str, Any]) -> int:
    """Return how many images and masks the members of a JSON request are."""
    values = (fields[name] for name in (*LIST_MEMBERS, *MASK_MEMBERS) if name in fields)
    return sum(len(value) if isinstance(value, list) else 1 for value in values)


def _sources(name: str, value: Any) -> list[Source]:
    if isinstance(value, list):
        if not value:
            raise RequestError(
                f"Invalid '{name}': empty array. Expected an array with minimum length 1.",
                param=name,
                code="empty_array",
            )
        check_length(name, value)
        return [_source(f"{name}[{index}]", item) for index, item in enumerate(value)]
    return [_source(name, value)]


def check_length(name: str, value: Sequence[Any]) -> None:
    """Raise `RequestError` where a member has more references than any model takes."""
    if len(value) > _MOST:
        raise RequestError(
            f"Invalid '{name}': array too long. Expected an array with maximum length {_MOST}, but got an array with "
            f"length {len(value)} instead.",
            param=name,
            code="array_above_max_length",
        )


def _source(member: str, value: Any) -> Source:
    if isinstance(value, str):
        return Source(member, url=value)
    if not isinstance(value, Mapping):
        raise type_error(member, "an object with image_url or file_id", value)
    if strange := set(value) - {"image_url", "url", "file_id", "type"} or {"image_url", "url"} <= set(value):
        names = ", ".join(sorted(strange)) if isinstance(strange, set) else "image_url and url"
        raise RequestError(f"'{member}' has unsupported members: {names[:128]}.", param=member)
    url = value.get("image_url", value.get("url"))
    if isinstance(url, Mapping):  # chat completions write image_url: {url}
        url = url.get("url")
    file_id = value.get("file_id")
    if (url is None) == (file_id is None):
        raise RequestError(
            f"Invalid '{member}': expected exactly one of image_url and file_id.", param=member, code="invalid_value"
        )
    chosen = url if file_id is None else file_id
    if not isinstance(chosen, str) or not chosen:
        raise type_error(f"{member}.{'image_url' if file_id is None else 'file_id'}", "a string", chosen)
    return Source(member, url=url, file_id=file_id)


def check_link(member: str, url: object, *, longest: int = MAX_LINK) -> None:
    """Raise `RequestError` where `url` is not a link that a provider could load."""
    try:
        parts = urlsplit(url) if isinstance(url, str) and len(url) <= longest else None
    except ValueError:
        parts = None
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        raise RequestError(
            f"'{member}' must be an http or https link of at most {longest} characters.",
            param=member,
            code="invalid_url",
        )


def data_url(member: str, url: str) -> DataURL | None:
    """Return the content of a data URL; None: it is an ordinary one. Raises `RequestError`."""
    if not is_data_url(url):
        return None
    try:
        found = read_data_url(url)
    except InvalidBase64:
        raise RequestError(f"The base64 of '{member}' is invalid.", param=member, code="invalid_base64") from None
    except DataURLError:
        raise RequestError(f"'{member}' must be a data URL or a link.", param=member, code="invalid_url") from None
    if not found.data:
        raise RequestError(f"'{member}' is empty.", param=member, code="invalid_image_file")
    return found
