"""Where the pictures of a reply are: under any usual name, on the reply or in its items. Pure.

What a text is decides itself: base64 is known by the picture in it, a link by its scheme. A text that is neither may
be a reference without a host; whether a picture is there has to be looked up.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec
import pybase64

from imagegate.protocol.data_urls import DataURLError, read_data_url
from imagegate.protocol.image_format import holds_picture, sniff
from imagegate.protocol.links import is_full
from imagegate.protocol.messages import ImageReply, Picture, ReplyImage
from imagegate.protocol.names import BASE64_MEMBERS, EITHER, LINK_MEMBERS, LISTS, members_of, plain
from imagegate.protocol.parsers.base64_json import TOKEN_MARK

TEXTS: Final = (*BASE64_MEMBERS, *LINK_MEMBERS, *EITHER)
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]{32,}={0,2}", re.ASCII)
_HEAD: Final = 400
"""Characters of base64 by which an image is recognized."""
_URL_SAFE: Final = str.maketrans("-_", "+/")
_MOST_ITEMS: Final = 1000
_DEEPEST: Final = 12
_SURE: Final = 3


def pictures_in(node: Any) -> list[tuple[Any, ReplyImage | None]]:
    """Return the items of a reply in the provider's order, each with its picture; None: it has none."""
    found, _ = _search(node, 0)
    return found


def has_pictures(items: list[Any]) -> bool:
    """Return whether a list holds pictures itself, rather than replies with pictures."""
    return any(picture_in(item) is not None for item in items)


def picture_in(item: Any) -> ReplyImage | None:
    """Return the picture of one item; None: it has none, or the provider withheld it."""
    if isinstance(item, str):
        return _of_text(item, {}, is_base64=False)
    if not isinstance(item, Mapping) or is_withheld(item) or item.get("error"):
        return None
    members = members_of(item)
    fields = {
        name: value
        for name, value in item.items()
        if plain(name) not in TEXTS and name != "respect_moderation" and value is not None and not _is_form(name, value)
    }
    weak: ReplyImage | None = None
    for name in TEXTS:
        value = members.get(name)
        if isinstance(value, Mapping):
            value = next((value[key] for key in ("url", "data") if isinstance(value.get(key), str)), None)
        if isinstance(value, str) and (image := _of_text(value, fields, is_base64=name in BASE64_MEMBERS)):
            if not image.written:
                return image
            weak = weak or (image if name in LINK_MEMBERS or value.startswith("/") else None)
    return weak


def _is_form(name: str, value: Any) -> bool:
    """Return whether a member says in which form the picture came, as at Together: clients may get it in another."""
    return name == "type" and value in ("b64_json", "base64", "url")


def is_withheld(item: Mapping[str, Any]) -> bool:
    """Return whether an item says that its picture was withheld for its content: by xAI's member, or Ideogram's."""
    return item.get("respect_moderation") is False or item.get("is_image_safe") is False


def picture_of_text(text: str) -> ReplyImage | None:
    """Return the picture that a text is; None: it is none, or may be a reference that has to be looked up."""
    image = _of_text(text, {}, is_base64=False)
    return image if image is not None and not image.written else None


def _search(node: Any, depth: int) -> tuple[list[tuple[Any, ReplyImage | None]], int]:
    """Return the items of a node, and how good they are, as `_worth` has it."""
    if depth > _DEEPEST:
        return [], 0
    if isinstance(node, list):
        found = [one for item in node[:_MOST_ITEMS] for one in _of_item(item, depth + 1)]
        return found, _worth(found)
    if not isinstance(node, Mapping):
        return [], 0
    if isinstance(data := node.get("data"), list) and data:  # as OpenAI has it
        found, worth = _search(data, depth + 1)
        if worth == _SURE:
            return found, worth
    members = members_of(node)
    best: tuple[list[tuple[Any, ReplyImage | None]], int] = ([], 0)
    for name in LISTS:
        value = members.get(name)
        if isinstance(value, (list, Mapping)) and value:
            found, worth = _search(value, depth + 1)
            if worth > best[1]:
                best = found, worth
            if worth == _SURE:
                return best
    image = picture_in(node)
    if image is not None:  # what describes the whole reply is not about the picture
        own = {name: value for name, value in image.fields.items() if name == "revised_prompt"}
        image = msgspec.structs.replace(image, fields=own)
    alone = [(node, image)]
    return (alone, _worth(alone)) if image is not None and _worth(alone) > best[1] else best


def _of_item(item: Any, depth: int) -> Iterator[tuple[Any, ReplyImage | None]]:
    if not isinstance(item, (Mapping, list)):
        yield item, picture_in(item)
        return
    image = picture_in(item)
    if image is not None and not image.written:
        yield item, image
        return
    nested, worth = _search(item, depth)
    if worth == _SURE or (worth > 0 and image is None):
        yield from nested
    else:
        yield item, image


def _worth(found: list[tuple[Any, ReplyImage | None]]) -> int:
    """Return how much there is: 3 with a picture, 2 with a text that may be a reference, 1 with objects, 0: nothing."""
    images = [image for _, image in found if image is not None]
    if images:
        return 2 if all(image.written for image in images) else _SURE
    return int(any(isinstance(item, Mapping) and item for item, _ in found))


def _of_text(text: str, fields: Mapping[str, Any], *, is_base64: bool) -> ReplyImage | None:
    """Return what a text is; `written` is set where that has to be looked up."""
    if not text.strip():
        return None
    if text.startswith(TOKEN_MARK):  # in place of base64, wherever it stood
        return ReplyImage(b64_json=text, fields=fields)
    if text[:5].lower() == "data:":
        encoded = _of_data_url(text)
        return ReplyImage(b64_json=encoded, fields=fields) if encoded else None
    if is_full(text[:64]):
        return ReplyImage(url=text, fields=fields)
    encoded = plain_base64(text)
    if is_base64 or _holds_picture(encoded):
        return ReplyImage(b64_json=encoded, fields=fields)
    return ReplyImage(url=text, written=text, fields=fields)


def _of_data_url(url: str) -> str | None:
    head, comma, body = url.partition(",")
    if comma and head.endswith(";base64") and "%" not in body:
        return plain_base64(body)  # or a token that identifies it
    try:
        data = read_data_url(url).data
    except DataURLError:
        return None
    return pybase64.b64encode(data).decode() if sniff(data) is not None else None


def plain_base64(text: str) -> str:
    """Return base64 in its usual alphabet and without line breaks, which some providers leave in."""
    if text.startswith(TOKEN_MARK):
        return text
    is_plain = text.isascii() and not ("\n" in text or "\r" in text or " " in text or "\t" in text)
    text = text if is_plain else "".join(text.split())
    is_url_safe = ("-" in text or "_" in text) and not ("+" in text or "/" in text)
    return text.translate(_URL_SAFE) if is_url_safe else text


def _holds_picture(text: str) -> bool:
    return holds_picture(text[:_HEAD]) and _BASE64.fullmatch(text) is not None


def with_pictures(reply: ImageReply, pictures: Mapping[str, Picture]) -> ImageReply:
    """Return the reply with tokens replaced by their images."""
    return msgspec.structs.replace(reply, images=images_with_pictures(reply.images, pictures)) if pictures else reply


def images_with_pictures(images: Iterable[ReplyImage], pictures: Mapping[str, Picture]) -> tuple[ReplyImage, ...]:
    """Return the images with tokens replaced by the pictures that they stand for."""
    return tuple(
        image
        if image.b64_json is None or image.b64_json not in pictures
        else ReplyImage(picture=pictures[image.b64_json], fields=image.fields)
        for image in images
    )
