"""Texts in a character set that a header names (RFC 7578 section 4.5, RFC 8187). No I/O."""

from __future__ import annotations

import codecs
import re
from functools import lru_cache
from typing import Final
from urllib.parse import unquote_to_bytes

KNOWN: Final = frozenset(
    (
        *("utf-8", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "ascii", "iso8859-1"),
        *(f"iso8859-{part}" for part in (2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 16)),
        *(f"cp{page}" for page in (437, 850, 852, 866, 874, 932, 949, 950, *range(1250, 1259))),
        *("gb2312", "gbk", "gb18030", "big5", "big5hkscs", "euc_jp", "shift_jis", "iso2022_jp", "euc_kr"),
        *("koi8-r", "koi8-u", "mac-roman", "mac-cyrillic", "tis-620"),
    )
)
"""Those of Python's codecs that are character sets of text, as Python calls them; each is loaded when it is needed."""
_PARAMETER: Final = re.compile(r';\s*charset\s*=\s*"?([\w.:-]{1,40})', re.IGNORECASE | re.ASCII)


class UnknownCharset(ValueError):
    """No character set has that name."""


def decode(raw: bytes, charset: str) -> str:
    """Return a text.

    Raises:
        UnknownCharset: nothing has that name.
        UnicodeDecodeError: it is no text in that character set.
    """
    codec = _codec(charset)
    if codec is None:
        raise UnknownCharset(charset)
    return raw.decode(codec)


def in_utf8(raw: bytes, content_type: str) -> bytes:
    """Return a text in UTF-8 of which a ``Content-Type`` names another character set; else as it is."""
    found = _PARAMETER.search(content_type)
    codec = _codec(found[1]) if found else None
    return raw if codec in (None, "utf-8", "ascii") else raw.decode(codec, "replace").encode()


def decode_extended(value: str) -> str | None:
    """Return an extended value, ``UTF-8''na%C3%AFve.png`` (RFC 8187 section 3.2.1); None: it is none."""
    charset, quote, rest = value.partition("'")
    _, second, encoded = rest.partition("'")
    if not quote or not second:
        return None
    try:
        return decode(unquote_to_bytes(encoded), charset)
    except ValueError:
        return None


@lru_cache(maxsize=128)
def _codec(charset: str) -> str | None:
    try:
        name = codecs.lookup(charset.strip()).name
    except (LookupError, ValueError):
        return None
    return name if name in KNOWN else None
