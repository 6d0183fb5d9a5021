"""A principal: whoever a request is from, with what they may ask for and how much of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import islice
from typing import Final

import msgspec

_KEY: Final = re.compile(r"[!-~]+")
_LONGEST_ID: Final = 512
"""Characters of identifiers that are stored as database keys."""
_LABELS: Final = 16
_LONGEST_LABEL: Final = 64
_LONGEST_VALUE: Final = 256


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How much a principal, a group of them or the whole gateway may use; None: any amount."""

    requests_per_minute: int | None = None
    """In a minute of the clock."""
    requests_per_day: int | None = None
    """In a day, UTC."""
    images_per_minute: int | None = None
    """Images asked for in a minute of the clock."""
    images_per_day: int | None = None
    """Images asked for in a day, UTC."""
    in_flight: int | None = None
    """Requests at a time."""
    spend_per_day: float | None = None
    """In the currency of the prices, in a day, UTC."""
    spend_per_month: float | None = None
    """The same, in a calendar month, UTC."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if (value := getattr(self, name)) is not None and not value >= 0:  # NaN is no limit either
                raise ValueError(f"{name} must be 0 or more, or left out")


NO_LIMITS = Limits()


class Principal(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Whoever a request is from: a user of the host application, or the holder of a key.

    Raises:
        ValueError: `id` is empty, it or the name of a group has control characters or more than 512 characters, one
            text was given in place of several, or a key has characters that no header field may have.
    """

    id: str
    """Unique and lasting; at most 512 characters. Tasks, idempotency keys, stored images, limits and spending belong to
    it."""
    name: str = ""
    """For people, in logs, metrics and the console; default: `id`."""
    limits: Limits = NO_LIMITS
    groups: Mapping[str, Limits] = {}
    """Name -> limits of each group, which its members share."""
    tenant: str = ""
    """Whose store prefix its images have; default: one of its own."""
    models: tuple[str, ...] = ()
    """Public model names that may be asked for; ``*`` matches any characters. Empty: all."""
    sizes: tuple[str, ...] = ()
    """Values of ``size``, likewise."""
    operations: tuple[str, ...] = ()
    """``generations``, ``edits``, ``variations``. Empty: all."""
    upstream_keys: Mapping[str, str] = {}
    """Upstream -> the principal's own key for it, sent there in place of the configured one and nowhere else."""
    metadata: Mapping[str, str] = {}
    """For the record of an exchange and its log line; nothing secret. At most 16 entries, cut to 64 and 256 characters.
    """

    def __post_init__(self) -> None:
        if not self.id:
            raise ValueError("the id of a principal must not be empty")
        for kind, name in (
            ("the id of a principal", self.id),
            *(("the name of a group", name) for name in self.groups),
        ):
            if len(name) > _LONGEST_ID or not name.isprintable():
                raise ValueError(f"{kind} must have at most {_LONGEST_ID} characters, and no control characters")
        if not self.name:
            msgspec.structs.force_setattr(self, "name", self.id)
        for name in ("models", "sizes", "operations"):
            if isinstance(value := getattr(self, name), str):
                raise ValueError(f"{name} must be a tuple of texts, not one text")
            if not isinstance(value, tuple):
                msgspec.structs.force_setattr(self, name, tuple(value))
        for upstream, key in self.upstream_keys.items():
            if not _KEY.fullmatch(key):
                raise ValueError(f"the key for the upstream {upstream!r} is empty or has characters that no key has")
        if self.metadata:
            shown = {
                str(name)[:_LONGEST_LABEL]: str(value)[:_LONGEST_VALUE]
                for name, value in islice(self.metadata.items(), _LABELS)
            }
            msgspec.structs.force_setattr(self, "metadata", shown)

    def __repr__(self) -> str:
        """Show it without its keys, which must not stand in a log."""
        return f"Principal(id={self.id!r}, name={self.name!r})"
