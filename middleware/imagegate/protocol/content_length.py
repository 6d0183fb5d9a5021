"""How long a body is, by the word of its sender."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_MOST_DIGITS: Final = 19
"""No body is longer, and `int` refuses numbers of thousands of digits."""


def read_length(value: str | bytes) -> int | None:
    """The value of a ``Content-Length`` header; None: it is no length."""
    return int(value) if value.isascii() and value.isdigit() and len(value) <= _MOST_DIGITS else None


def length_of_reply(headers: Mapping[str, str]) -> int | None:
    """Bytes that reading a reply's body will give; None: its headers do not tell. Names are in lower case."""
    return None if "content-encoding" in headers else read_length(headers.get("content-length", ""))
