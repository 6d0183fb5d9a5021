"""How a provider is shown a key: the header field and the scheme. Pure."""

from __future__ import annotations

from base64 import b64encode
from typing import Final

import msgspec


class Authentication(msgspec.Struct, frozen=True, kw_only=True):
    """The header field that carries a key (RFC 9110 section 11.6.2, or a field of the provider's own)."""

    header: str = "authorization"
    """In lower case: ``x-goog-api-key``, ``api-key``, ``x-key``."""
    scheme: str = "Bearer"
    """Before the key: ``Bearer``, ``Key``; ``Basic`` encodes a key that is ``user:password``; empty: the key alone."""
    required: bool = True
    """False: for servers that may run without a key. They are sent their own, where they have one, and no client's."""

    def field(self, key: str) -> tuple[str, str]:
        """Return the field that carries a key."""
        if self.scheme == "Basic":
            key = b64encode(key.encode()).decode()
        return self.header, f"{self.scheme} {key}" if self.scheme else key

    def field_of_client(self, authorization: str) -> tuple[str, str]:
        """Return the field that carries the key of a client's ``Authorization``, for upstreams without their own."""
        if self == BEARER:
            return self.header, authorization
        scheme, _, key = authorization.strip().rpartition(" ")
        is_same = self.header == "authorization" and scheme.lower() == self.scheme.lower()
        return (self.header, authorization) if is_same else self.field(key)


BEARER: Final = Authentication()
