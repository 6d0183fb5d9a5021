"""Names of stored pictures, and of tenants: none of them can be guessed or led back to what it was made from."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from typing import Final

from imagegate.protocol.image_format import ImageFormat

_KEY: Final = re.compile(r"[A-Za-z0-9_-]{32}\.[a-z0-9]{2,5}")
_BYTES: Final = 24
"""Of randomness, or of a digest, in a name: 192 bits."""


def new_key(kind: ImageFormat) -> str:
    """Return 192 random bits and the format's extension."""
    return f"{secrets.token_urlsafe(_BYTES)}.{kind.extension}"


def is_key(text: str) -> bool:
    return _KEY.fullmatch(text) is not None


class ContentKey:
    """The name of a picture by its bytes: the same bytes, the same name, which cannot be computed without the `secret`.

    HMAC-SHA256, cut to 192 bits.
    """

    def __init__(self, secret: bytes) -> None:
        self._digest = hmac.new(secret, digestmod=hashlib.sha256)

    def update(self, data: bytes) -> None:
        self._digest.update(data)

    def key(self, kind: ImageFormat) -> str:
        return f"{base64.urlsafe_b64encode(self._digest.digest()[:_BYTES]).decode()}.{kind.extension}"


def tenant_name(tenant: str, secret: bytes) -> str:
    """Return 16 hexadecimal digits for a client's key (HMAC-SHA256 with `secret`); ``anonymous``: there is none."""
    if not tenant:
        return "anonymous"
    return hmac.new(secret, b"tenant\n" + tenant.encode(), hashlib.sha256).hexdigest()[:16]
