"""Pictures under names that nobody foresaw, of a reply in which nothing else was found. Pure.

What is taken has one reading only: base64 and data URLs with a picture in them, Markdown of an image, and links to a
file that is called as a picture. They may be in JSON that is printed into a text. What a reply repeats of the request,
a preview and the address of a task are none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from imagegate.protocol.links import is_full
from imagegate.protocol.messages import ReplyImage
from imagegate.protocol.names import may_hold_result
from imagegate.protocol.parsers.lenient_json import read_value
from imagegate.protocol.reply_pictures import is_withheld, picture_of_text

_MARKDOWN: Final = re.compile(r"!\[[^\]\n]{0,500}\]\(\s*<?((?:https?://|data:image/)[^\s)>]+)", re.IGNORECASE)
_FILE: Final = re.compile(r"\.(?:png|jpe?g|webp|gif|avif|svg)", re.IGNORECASE)
_DEEPEST: Final = 12
_MOST_NODES: Final = 5000


def stray_pictures(document: Any) -> list[ReplyImage]:
    """Return the pictures of a reply in its order; of several in one object, which are the same in other forms, one."""
    return list(_of_node(document, [_MOST_NODES], 0))


def picture_of_body(body: bytes) -> ReplyImage | None:
    """Return the picture that a body is as a text: base64, a data URL or a link alone, perhaps in quotes."""
    try:
        text = body.decode("ascii").strip().strip('"').strip()
    except UnicodeDecodeError:
        return None
    if is_full(text):
        return ReplyImage(url=text) if len(text.split()) == 1 and len(text) < 8192 else None
    image = picture_of_text(text)
    return image if image is not None and image.b64_json is not None else None


def _of_node(node: Any, left: list[int], depth: int) -> Iterator[ReplyImage]:
    left[0] -= 1
    if depth > _DEEPEST or left[0] < 0:
        return
    if isinstance(node, list):
        for item in node:
            yield from _of_node(item, left, depth + 1)
    elif isinstance(node, str):
        yield from _of_text(node, left, depth)
    elif isinstance(node, Mapping) and not is_withheld(node):
        members = {name: value for name, value in node.items() if may_hold_result(name)}
        own = (image for value in members.values() if isinstance(value, str) for image in _of_text(value, left, depth))
        if (first := next(own, None)) is not None:
            yield first
            return
        for value in members.values():
            if isinstance(value, (list, Mapping)):
                yield from _of_node(value, left, depth + 1)


def _of_text(text: str, left: list[int], depth: int) -> Iterator[ReplyImage]:
    if is_full(text[:64]):
        if len(text.split()) == 1 and _is_file(text):
            yield ReplyImage(url=text)
        return
    if text.lstrip()[:1] in ("{", "["):
        value = read_value(text.encode("utf-8", "replace"))
        yield from _of_node(value, left, depth + 1) if value is not None else ()
        return
    image = picture_of_text(text)
    if image is not None and image.b64_json is not None:
        yield image
        return
    for found in _MARKDOWN.finditer(text):
        image = picture_of_text(found[1])
        if image is not None:
            yield image


def _is_file(link: str) -> bool:
    try:
        path = urlsplit(link.strip()).path
    except ValueError:
        return False
    return _FILE.search(path[-6:]) is not None
