"""What a hook may answer in place of None, which lets a request or an answer pass."""

from __future__ import annotations

import msgspec


class Refuse(msgspec.Struct, frozen=True):
    """The request is not sent."""

    reason: str
    """For the client."""
    field: str = "prompt"
    """The member at fault."""


class Replace(msgspec.Struct, frozen=True):
    """The request is sent with another prompt, which is disclosed to the client."""

    prompt: str


class Withhold(msgspec.Struct, frozen=True):
    """The images are not delivered, although they were made and are paid for."""

    reason: str
    """For the client."""
