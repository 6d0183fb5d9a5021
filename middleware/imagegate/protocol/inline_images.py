"""Base64 of providers, as they write it."""

from __future__ import annotations

import binascii

import pybase64

from imagegate.protocol.provider_errors import uncertain


def decode_base64(text: str) -> bytes:
    """Return the bytes of a provider's base64, whatever its padding is. Raises `UpstreamUncertain` where it is none."""
    try:
        return pybase64.b64decode(padded(text), validate=True)
    except (binascii.Error, ValueError):
        raise uncertain("The provider's reply carries broken base64.") from None


def padded(text: str) -> str:
    """Return base64 with the padding that clients, which are stricter than providers, want."""
    text = text.rstrip("=")
    return text + "=" * (-len(text) % 4)
