"""``data:`` URLs, as the WHATWG Fetch standard reads them (section 6, "data: URL processor"). Pure."""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

import pybase64

_MEDIA_TYPE: Final = re.compile(r"[a-z0-9.+-]{1,64}/[a-z0-9.+-]{1,64}", re.ASCII)
_ENCODED: Final = re.compile(r"; *base64$", re.IGNORECASE)
_AROUND: Final = "".join(map(chr, range(0x21)))
_URL_SAFE: Final = bytes.maketrans(b"-_", b"+/")
_SPACES: Final = b"\t\n\f\r "


class DataURLError(ValueError):
    """It is no data URL."""


class InvalidBase64(DataURLError):
    """The base64 in it is none."""


class DataURL(NamedTuple):
    """The content of a ``data:`` URL."""

    media_type: str
    data: bytes


def is_data_url(url: str) -> bool:
    """Return whether a URL is one with the scheme ``data``."""
    return url[:64].lstrip(_AROUND)[:5].lower() == "data:"


def read_data_url(url: str) -> DataURL:
    """Return the content of a data URL. Raises `DataURLError`."""
    head, comma, body = url.strip(_AROUND)[5:].partition(",")
    if not is_data_url(url) or not comma:
        raise DataURLError
    head = head.strip(" \t\r\n\f")
    body = body.partition("#")[0]
    raw = body.encode("utf-8", "replace")
    # As a URL it has no line breaks, which clients that write one by hand leave in.
    data = unquote_to_bytes(raw.translate(None, b"\t\r\n")) if "%" in body or not body.isascii() else raw
    if _ENCODED.search(head):
        head = _ENCODED.sub("", head)
        data = forgiving_base64(data)
    media_type = head.partition(";")[0].strip(" ").lower()
    return DataURL(media_type if _MEDIA_TYPE.fullmatch(media_type) else "", data)


def forgiving_base64(data: bytes) -> bytes:
    """Decode base64 with white space and without padding (WHATWG Infra, section 7), or in the alphabet of URLs.

    Raises `InvalidBase64`.
    """
    try:
        return pybase64.b64decode(data, validate=True)
    except ValueError:
        pass
    data = data.translate(None, _SPACES)
    if (b"-" in data or b"_" in data) and not (b"+" in data or b"/" in data):
        data = data.translate(_URL_SAFE)  # RFC 4648 section 5, which libraries offer for everything in URLs
    if len(data) % 4 == 0:
        data = data[:-2] if data.endswith(b"==") else data[:-1] if data.endswith(b"=") else data
    if len(data) % 4 == 1:
        raise InvalidBase64
    try:
        return pybase64.b64decode(data + b"=" * (-len(data) % 4), validate=True)
    except ValueError:
        raise InvalidBase64 from None
