"""What the gateway did to a request, in the words of the `Imagegate-Changes` header (an RFC 9651 list)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final, Literal

import msgspec

Kind = Literal["added", "clamped", "converted", "dropped", "made", "mapped", "renamed", "replaced"]

MAX_LISTED: Final = 32
"""Items. A request with more changes ends its header with the number of those left out."""
MAX_LENGTH: Final = 4000
"""Characters, likewise: many clients take no header line of more than 8 KiB."""
_MAX_VALUE: Final = 96
_TOKEN = re.compile(r"[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]*")


class Change(msgspec.Struct, frozen=True, omit_defaults=True, rename={"from_": "from"}):
    """One field that reaches the provider otherwise than the client wrote it, or that it did not keep to (``made``).

    A ``replaced`` value is not recorded here: prompts are not logged.
    """

    field: str
    kind: Kind
    from_: Any = None
    to: Any = None


def header_value(changes: Sequence[Change]) -> str:
    """Return the changes as an RFC 9651 list: ``size;from="1792x1024";to="1536x1024", style;dropped``."""
    items: list[str] = []
    size = 0
    for change in changes:
        item = _item(change)
        size += len(item) + 2
        if len(items) >= MAX_LISTED or size > MAX_LENGTH:
            return ", ".join([*items, f"*;more={len(changes) - len(items)}"])
        items.append(item)
    return ", ".join(items)


def _item(change: Change) -> str:
    name = change.field
    item = name if len(name) <= _MAX_VALUE and _TOKEN.fullmatch(name) else _string(name)
    if change.kind in ("dropped", "replaced"):
        return f"{item};{change.kind}"
    if change.kind == "added":
        return f"{item};added;to={_bare(change.to)}"
    if change.kind == "renamed":
        return f"{item};renamed={_bare(change.to)}"
    if change.kind in ("made", "converted"):
        return f"{item};from={_bare(change.from_)};{change.kind}={_bare(change.to)}"
    return f"{item};from={_bare(change.from_)};to={_bare(change.to)}"


def _bare(value: Any) -> str:
    """Return an RFC 9651 bare item; what has no form of its own there becomes a string of JSON."""
    if isinstance(value, bool):
        return "?1" if value else "?0"
    if isinstance(value, int) and abs(value) < 10**15:
        return str(value)
    if isinstance(value, float) and abs(round(value, 3)) < 10**12:
        return f"{value:.1f}" if value.is_integer() else format(Decimal(str(round(value, 3))), "f")
    if isinstance(value, str):
        return _string(value)
    return _string(msgspec.json.encode(value).decode())


def _string(text: str) -> str:
    if len(text) > _MAX_VALUE:
        text = text[: _MAX_VALUE - 3] + "..."
    if text.isascii() and text.isprintable():
        escaped = text.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    encoded = "".join(
        chr(byte) if 0x20 <= byte < 0x7F and byte not in b'%"' else f"%{byte:02x}"
        for byte in text.encode("utf-8", "replace")
    )
    return f'%"{encoded}"'
