"""The header Retry-After (RFC 9110, section 10.2.3): seconds, or a date. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

_SECONDS: Final = re.compile(r"([0-9]{1,9})(?:\.[0-9]{1,9})?", re.ASCII)
"""Fractions stand in no RFC, but in providers' replies, and the official SDKs read them."""


def seconds_asked(headers: Mapping[str, str], *, now: float) -> float | None:
    """How long the sender of a reply wants to be left alone; None: it does not say, or in a way that cannot be read.

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
    """Unix time of an HTTP date."""
    try:
        date = parsedate_to_datetime(text)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
