"""Keys that are made at run time: what is shown once, what is kept, and what it says of its holder. Pure."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from imagegate.access.principal import NO_LIMITS, Limits, Principal

STORED: Final = "key_"
"""What the ids of stored keys begin with, and those of no other principal."""
SQLITE: Final = "sqlite:///"
POSTGRES: Final = "postgresql://"
"""What addresses of their databases begin with."""
_MARK: Final = "sk-ig-"
_KEY: Final = re.compile(rb"sk-ig-[A-Za-z0-9_-]{43}")
_SHOWN: Final = 12
"""Characters of a key that tell it from others, and of which 37 are left to guess."""


class KeySettings(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What the holder of a key may ask for; default: anything."""

    models: tuple[str, ...] = ()
    sizes: tuple[str, ...] = ()
    operations: tuple[Literal["generations", "edits", "variations"], ...] = ()
    groups: tuple[str, ...] = ()
    limits: Limits = NO_LIMITS
    tenant: str = ""
    metadata: Mapping[str, str] = {}


class StoredKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key as the database has it; times are Unix times in seconds."""

    id: str
    name: str
    prefix: str
    """The first characters of the key itself; of the newest one where there are several."""
    settings: KeySettings
    created: int
    expires: int | None = None
    revoked: int | None = None
    last_used: int | None = None

    def principal(self, groups: Mapping[str, Limits]) -> Principal:
        """Return the holder.

        Args:
            groups: of the configuration.

        Raises:
            LookupError: the key is of a group that the configuration does not have, so that its limits are not known.
        """
        settings = self.settings
        return Principal(
            id=self.id,
            name=self.name,
            limits=settings.limits,
            groups={name: groups[name] for name in settings.groups},
            tenant=settings.tenant,
            models=settings.models,
            sizes=settings.sizes,
            operations=settings.operations,
            metadata=settings.metadata,
        )


def new_key() -> str:
    """Return a new key of 32 random bytes."""
    return f"{_MARK}{secrets.token_urlsafe(32)}"


def new_id() -> str:
    """Return the id of a new key."""
    return f"{STORED}{secrets.token_hex(10)}"


def prefix_of(key: str) -> str:
    """Return what is kept of a key in clear."""
    return key[:_SHOWN]


def is_key(text: bytes) -> bool:
    """Return whether a text can be a stored key, so that others are never looked up."""
    return _KEY.fullmatch(text) is not None


def hash_of(key: bytes) -> str:
    """Return what is kept of a key.

    A plain SHA-256 is enough: 256 random bits cannot be guessed, so that neither a salt nor a slow hash, which
    passwords need, would make it harder; and a lookup by the hash tells nothing of the key in its timing.
    """
    return hashlib.sha256(key).hexdigest()
