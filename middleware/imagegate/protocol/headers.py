"""Header fields whose values have a grammar (RFC 9110): ``Content-Length`` (8.6) and ``Retry-After`` (10.2.3)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

_MOST_DIGITS: Final = 19
"""No body is longer, and `int` refuses numbers of thousands of digits."""


def read_length(value: str | bytes) -> int | None:
    """Return the value of a ``Content-Length`` header; None: it is no length."""
    return int(value) if value.isascii() and value.isdigit() and len(value) <= _MOST_DIGITS else None


def length_of_reply(headers: Mapping[str, str]) -> int | None:
    """Return the length of a reply's body in bytes; None: unknown. Header names are in lower case."""
    return None if "content-encoding" in headers else read_length(headers.get("content-length", ""))


_SECONDS: Final = re.compile(r"([0-9]{1,9})(?:\.[0-9]{1,9})?", re.ASCII)
"""Fractions are in no RFC, but providers send them, and the official SDKs read them."""


def seconds_asked(headers: Mapping[str, str], *, now: float) -> float | None:
    """Return the delay of ``Retry-After`` in seconds; None: absent or malformed.

    A date is counted from the reply's own Date, so that it does not matter whose clock is right.

    Args:
        headers: of the reply, names in lower case.
        now: Unix time in seconds, for replies without a Date.
    """
    asked = headers.get("retry-after", "").strip()
    if _SECONDS.fullmatch(asked):
        return float(asked)
    until = _time(asked)
    if until is None:
        return None
    sent = _time(headers.get("date", ""))
    left = until - (now if sent is None else sent)
    return left if left > 0 else None


def _time(text: str) -> float | None:
    """Return the Unix time of an HTTP date."""
    try:
        date = parsedate_to_datetime(text)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
