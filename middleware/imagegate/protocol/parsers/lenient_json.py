"""JSON as providers send it: what RFC 8259 forbids beside a picture must not cost the picture. No I/O.

Forgiven are a byte order mark, UTF-16 behind one, bytes that are no UTF-8, lone surrogates, ``NaN`` and ``Infinity``,
control characters and unknown escapes in texts, numbers that are too large, and anything after the document. What
cannot be said in JSON becomes null or U+FFFD; nothing is made up.
"""

from __future__ import annotations

import codecs
import json
import re
from math import isfinite
from typing import Any, Final

import msgspec

from imagegate.protocol.parsers.json_mender import mended

DEEPEST: Final = 200
"""Objects and arrays within each other; providers' replies have ten."""
_MOST_CONTAINERS: Final = 20_000
_MOST_MEMBERS: Final = 200_000
_MOST_DIGITS: Final = 300
_ESCAPE: Final = re.compile(r'\\(["\\/bfnrt]|u[0-9a-fA-F]{4})?')
_BEFORE: Final = "\ufeff\x00 \t\r\n"
_PAGE: Final = re.compile(rb"\s*<(?:!doctype|html|\?xml)", re.IGNORECASE)
_DOCUMENT: Final = re.compile(rb'\{\s*"|\[\s*\{')
_LOG_LINE: Final = re.compile(r"\[\s*[A-Za-z]")
_UTF16_MARKS: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_value(body: bytes) -> dict[str, Any] | list[Any] | None:
    """Return a JSON object or array; None: it is something else, or has more members than any reply needs, or is nested
    too deeply for functions that call themselves: from Python 3.12 on the decoder goes deeper than those may.
    """
    containers = body.count(b"{") + body.count(b"[")
    if containers > _MOST_CONTAINERS or body.count(b",") > _MOST_MEMBERS:
        return None
    try:
        document = msgspec.json.decode(body)
    except RecursionError:
        return None
    except (msgspec.DecodeError, ValueError):
        document = _forgiving(body)
    if not isinstance(document, (dict, list)) or (containers > DEEPEST and _is_deep(document)):
        return None
    return document


def read_object(body: bytes) -> dict[str, Any] | None:
    """Return a JSON object, forgiving what does not belong in one; None: it is something else."""
    document = read_value(body)
    return document if isinstance(document, dict) else None


def read_printed(body: bytes) -> dict[str, Any] | list[Any] | None:
    """Return the JSON object or array that a body has as a text in quotes; None: it has none."""
    if not body.lstrip(b" \t\r\n").startswith((b'"{', b'"[')):
        return None
    try:
        return read_value(msgspec.json.decode(body, type=str).encode())
    except (msgspec.DecodeError, ValueError):
        return None


def start_of_document(head: bytes) -> int | None:
    """Return where JSON begins behind a few lines of something else, as warnings of PHP are, or a code fence.

    None: nowhere, or this is a page for people, which may have scripts in it.
    """
    if _PAGE.match(head):
        return None
    found = _DOCUMENT.search(head)
    return None if found is None else found.start()


def is_sound(body: bytes) -> bool:
    """Return whether a body is JSON by RFC 8259."""
    try:
        msgspec.json.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return False
    return True


def _forgiving(body: bytes) -> Any:
    if body.count(b",") > _MOST_MEMBERS or not body.strip(b"\x00 \t\r\n"):
        return None
    text = body.decode(_encoding_of(body), "replace").lstrip(_BEFORE)
    if not text.startswith(("{", "[")) or _LOG_LINE.match(text):
        return None
    try:
        document = _decoded(text)
    except RecursionError:
        return None
    if document is None or _is_deep(document):
        return None
    return _sayable(document) if "\\u" in text else document


def _encoding_of(body: bytes) -> str:
    """Return how a document is encoded: its first sign is ASCII, so that of two bytes one is zero in UTF-16."""
    if body.startswith(_UTF16_MARKS):
        return "utf-16"
    zeros = [byte == 0 for byte in body[:4]]
    if zeros == [False, True, False, True]:
        return "utf-16-le"
    return "utf-16-be" if zeros == [True, False, True, False] else "utf-8"


def _decoded(text: str) -> Any:
    try:
        return _DECODER.raw_decode(text)[0]
    except ValueError:
        pass
    try:
        return _DECODER.raw_decode(_ESCAPE.sub(lambda found: found[0] if found[1] else r"\\", text))[0]
    except ValueError:
        pass
    try:
        return _DECODER.decode(mended(text.encode("utf-8", "replace")).decode())
    except ValueError:
        return None


def _sayable(node: Any) -> Any:
    """Return a document without lone surrogates, which no encoding has."""
    if isinstance(node, str):
        return node if node.isascii() else node.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(node, list):
        return [_sayable(item) for item in node]
    if isinstance(node, dict):
        return {_sayable(name): _sayable(value) for name, value in node.items()}
    return node


def _integer(text: str) -> int | float | None:
    return int(text) if len(text) <= _MOST_DIGITS else _number(text)


def _number(text: str) -> float | None:
    value = float(text)
    return value if isfinite(value) else None


def _null(_: str) -> None:
    return None


_DECODER: Final = json.JSONDecoder(strict=False, parse_constant=_null, parse_int=_integer, parse_float=_number)


def _is_deep(document: Any) -> bool:
    level: list[Any] = [document]
    for _ in range(DEEPEST):
        children = (node.values() if isinstance(node, dict) else node for node in level)
        level = [child for group in children for child in group if isinstance(child, (dict, list))]
        if not level:
            return False
    return True
