"""W3C Trace Context: reading ``traceparent``. Pure.

Source: https://www.w3.org/TR/trace-context/, 3.2. Where no spans are recorded, the header goes upstream as it came.
"""

from __future__ import annotations

import re
from typing import Final

_TRACEPARENT: Final = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-[!-~]{1,128})?")


def read_traceparent(value: bytes | None) -> str:
    """The header where it is one, else ""; a later version may have more at its end."""
    found = _TRACEPARENT.fullmatch(value.strip()) if value else None
    if value is None or found is None:
        return ""
    version, trace, span, more = found.groups()
    empty = not trace.strip(b"0") or not span.strip(b"0")
    return "" if empty or version == b"ff" or (version == b"00" and more) else value.strip().decode()


def trace_id(traceparent: str) -> str:
    return traceparent[3:35]


def span_id(traceparent: str) -> str:
    return traceparent[36:52]
