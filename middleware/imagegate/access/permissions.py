"""What a principal may ask for. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

from imagegate.access.principal import Principal
from imagegate.contracts.contract import SIZE_FIELDS
from imagegate.contracts.size_syntax import SizeSyntaxError, parse_size
from imagegate.errors import NotPermitted

_SIZES: Final = (*SIZE_FIELDS, "image_size", "width", "height")
"""Members that say how large a picture is to be."""


def matches(text: str, patterns: Sequence[str]) -> bool:
    """Return whether one of the patterns fits; ``*`` matches any characters, and nothing else for others."""
    return any(fnmatchcase(text, pattern.replace("[", "[[]").replace("?", "[?]")) for pattern in patterns)


def may_ask_for(principal: Principal | None, model: str) -> bool:
    """Return whether a principal may know of a public model."""
    return principal is None or not principal.models or matches(model, principal.models)


def check_operation(principal: Principal, operation: str) -> None:
    """Raise `NotPermitted` for an operation that a principal may not ask for."""
    if principal.operations and operation not in principal.operations:
        raise NotPermitted(
            f"You may not ask for {operation}. Allowed: {', '.join(principal.operations)}.",
            param="operation",
            code="operation_not_allowed",
        )


def check_sizes(principal: Principal, fields: Mapping[str, Any]) -> None:
    """Raise `NotPermitted` for a size that a principal may not ask for, whichever member carries it.

    A request without one leaves it to the model, as ``auto`` does, and is permitted where that is.
    """
    if not principal.sizes:
        return
    sent = {name: value for name in _SIZES if (value := _member(fields, name)) is not None}
    allowed = [_spelled(size) for size in principal.sizes]
    for name, value in (sent or {"size": "auto"}).items():
        if not isinstance(value, str) or not matches(_spelled(value), allowed):
            shown = f"{name} {value[:64]!r}" if sent and isinstance(value, str) else f"a request by '{name}'"
            shown = shown if sent else "a request without 'size'"
            raise NotPermitted(
                f"You may not send {shown}. Allowed sizes: {', '.join(principal.sizes)}.",
                param=name,
                code="size_not_allowed",
            )


def _member(fields: Mapping[str, Any], path: str) -> Any:
    name, _, inner = path.partition(".")
    value = fields.get(name)
    return value.get(inner) if inner and isinstance(value, Mapping) else None if inner else value


def _spelled(size: str) -> str:
    """Return the one spelling of a size that has several; patterns stay as they are."""
    try:
        return str(parse_size(size)).lower()
    except SizeSyntaxError:
        return size.strip().lower()
