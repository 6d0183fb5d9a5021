"""Conditional requests (RFC 9110, section 13): whether a client has already what it asks for. Pure."""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime
from typing import Final

from starlette.datastructures import Headers

_ENTITY_TAG: Final = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')


def is_unchanged(asked: Headers, *, etag: str, last_modified: str) -> bool:
    """Return whether a ``GET`` or ``HEAD`` is to be answered 304.

    ``If-Modified-Since`` counts only where there is no ``If-None-Match``; what cannot be read counts as absent.

    Args:
        asked: headers of the request.
        etag: of the representation, strong.
        last_modified: of the representation, as an HTTP date.
    """
    if tags := asked.getlist("if-none-match"):
        text = ", ".join(tags)
        return text.strip() == "*" or etag in _ENTITY_TAG.findall(text)
    since, modified = _seconds(asked.get("if-modified-since", "")), _seconds(last_modified)
    return since is not None and modified is not None and modified <= since


def _seconds(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
