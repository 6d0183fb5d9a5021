"""How the requests of a model are written as JSON of the provider's own, as data. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec


class BodyRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the members of a request that fits its contract stand in the body. Dots lead into nested objects."""

    names: Mapping[str, str] = {}
    """Member -> the provider's name for it; empty: it is not sent. Others keep their names."""
    edges: tuple[str, ...] = ()
    """The two members that have width and height as integers; empty: a size is a text."""
    size_words: Mapping[str, str] = {}
    """The provider's own word for a size, where its member has the two inside -> the size that it means."""
    separator: Literal["x", "*"] = "x"
    """Between width and height where a size is a text."""
    with_size: Mapping[str, Any] = {}
    """Member -> what is sent there beside a size in pixels."""
    constants: Mapping[str, Any] = {}
    """Member -> what is always sent there."""
    images: str | tuple[str, ...] = ""
    """The member with the list of references, or one member for each of them, in order."""
    mask: str = ""
    """The member with the mask."""
    required: tuple[Literal["image", "mask"], ...] = ()
    """What a request must have."""
    files: Literal["data_url", "base64"] = "data_url"
    """What represents a file in the body."""

    def __post_init__(self) -> None:
        if len(self.edges) not in (0, 2):
            raise ValueError("edges: two members, for width and height, or none")
