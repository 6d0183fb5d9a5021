"""W3C Trace Context: reading ``traceparent`` and ``tracestate``. Pure.

Source: https://www.w3.org/TR/trace-context/, 3.2 and 3.3. Where no spans are recorded, the headers go
upstream as they came; a `tracestate` without a `traceparent` means nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

_TRACEPARENT: Final = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-[!-~]{1,128})?")


def read_traceparent(value: bytes | None) -> str:
    """Return the header where it is one, else ""; a later version may have more at its end."""
    found = _TRACEPARENT.fullmatch(value.strip()) if value else None
    if value is None or found is None:
        return ""
    version, trace, span, more = found.groups()
    empty = not trace.strip(b"0") or not span.strip(b"0")
    return "" if empty or version == b"ff" or (version == b"00" and more) else value.strip().decode()


_KEY: Final = r"[a-z][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13}"
_MEMBER: Final = re.compile(rf"({_KEY})=[ -+\--<>-~]{{0,255}}[!-+\--<>-~]")
_MOST_MEMBERS: Final = 32
_LONGEST: Final = 512
"""Characters of a list that is passed on; more is cut off at its end, member by member."""


def read_tracestate(values: Sequence[bytes]) -> str:
    """Return the list that the fields make together; empty: there is none, or it is none."""
    listed = b",".join(values).decode("latin-1").split(",")
    members = [member for each in listed if (member := each.strip(" \t"))]
    keys = [found[1] if (found := _MEMBER.fullmatch(member)) else "" for member in members]
    if len(members) > _MOST_MEMBERS or "" in keys or len(set(keys)) < len(keys):
        return ""
    while members and sum(map(len, members)) + len(members) - 1 > _LONGEST:
        members.pop()
    return ",".join(members)


def trace_headers(traceparent: str, tracestate: str) -> list[tuple[str, str]]:
    """Return the header fields of a request to somebody else."""
    if not traceparent:
        return []
    fields = [("traceparent", traceparent)]
    return [*fields, ("tracestate", tracestate)] if tracestate else fields


def trace_id(traceparent: str) -> str:
    return traceparent[3:35]


def span_id(traceparent: str) -> str:
    return traceparent[36:52]
