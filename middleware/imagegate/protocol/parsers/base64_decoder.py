"""Decodes base64 in pieces, in both alphabets of RFC 4648. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pybase64

_SPACES: Final = b" \t\r\n"
_URL_SAFE: Final = bytes.maketrans(b"-_", b"+/")


class ScanError(Exception):
    """The document is incomplete, invalid or too large. The message is for the client."""


class Base64Decoder:
    """Decode base64 that arrives in pieces cut anywhere; the padding may be missing or too long."""

    def __init__(self) -> None:
        self._carry = b""
        self._padded = False

    def feed(self, text: bytes | memoryview) -> Sequence[bytes]:
        """Return the bytes of all complete groups of four characters; skip white space. Raises `ScanError`."""
        try:
            decoded = self._decode(self._carry, text)
        except ValueError:
            joined = self._without_surplus((self._carry + bytes(text)).translate(None, _SPACES))
            try:
                decoded = self._decode(b"", joined)
            except ValueError:
                decoded = self._decode_url_safe(joined.translate(_URL_SAFE))
        if self._carry:
            self._carry = self._carry.translate(_URL_SAFE, _SPACES)
        return decoded

    def finish(self) -> bytes:
        """Return the bytes of the last group. Raises `ScanError`."""
        rest = self._carry.rstrip(b"=")
        if rest and self._padded:
            raise broken_base64()
        try:
            return pybase64.b64decode(rest.translate(_URL_SAFE) + b"=" * (-len(rest) % 4), validate=True)
        except ValueError:
            raise broken_base64() from None

    def _without_surplus(self, text: bytes) -> bytes:
        """Leave out superfluous padding at the end."""
        plain = text.rstrip(b"=")
        if self._padded:
            return plain
        return plain + b"=" * min(len(text) - len(plain), -len(plain) % 4)

    def _decode_url_safe(self, text: bytes) -> Sequence[bytes]:
        """Decode the alphabet of RFC 4648 section 5. Raises `ScanError`."""
        try:
            return self._decode(b"", text)
        except ValueError:
            raise broken_base64() from None

    def _decode(self, carry: bytes, text: bytes | memoryview) -> Sequence[bytes]:
        """Decode; raise `ValueError` without any change of state."""
        if carry:
            missing = 4 - len(carry)
            carry, text = carry + bytes(text[:missing]), text[missing:]
            if len(carry) < 4:
                self._carry = carry
                return ()
        whole = len(text) - len(text) % 4
        groups = [group for group in (carry, text[:whole]) if group]
        rest = bytes(text[whole:])
        padded = self._padded
        for group in groups:
            if padded:
                raise ValueError("characters after the padding")
            padded = bytes(group[-1:]) == b"="
        if padded and rest:
            raise ValueError("characters after the padding")
        decoded = [pybase64.b64decode(group, validate=True) for group in groups]  # to join them would cost a copy
        self._carry, self._padded = rest, padded
        return decoded


def broken_base64() -> ScanError:
    """Return the error for invalid base64."""
    return ScanError("The document contains invalid base64.")
