"""Clients' keys, and the names that logs and the console have for them."""

from __future__ import annotations

import hmac
from collections.abc import Collection, Mapping

from imagegate.errors import AuthenticationError


class APIKeys:
    """The keys that a gateway knows.

    Args:
        keys: name -> key, or keys without names; empty: anybody may come in.
    """

    def __init__(self, keys: Mapping[str, str] | Collection[str] = ()) -> None:
        named = keys if isinstance(keys, Mapping) else {f"key-{place}": key for place, key in enumerate(keys, start=1)}
        self._keys = tuple((name, key.encode()) for name, key in named.items())

    def __bool__(self) -> bool:
        return bool(self._keys)

    def name_of(self, authorization: bytes | None) -> str:
        """The name of the key in an ``Authorization`` header; "" where anybody may come in.

        Raises:
            AuthenticationError: there is none, or a wrong one.
        """
        if not self._keys:
            return ""
        scheme, _, key = (authorization or b"").strip().partition(b" ")
        key = key.strip()
        if scheme.lower() != b"bearer" or not key:
            raise AuthenticationError(
                "You did not provide an API key. Send it as 'Authorization: Bearer YOUR_KEY'.",
                code="missing_api_key",
                headers=[(b"www-authenticate", b"Bearer")],
            )
        # Every key is compared, so that the time taken does not tell which one came near.
        matches = [name for name, known in self._keys if hmac.compare_digest(key, known)]
        if not matches:
            raise AuthenticationError("Incorrect API key provided.", headers=[(b"www-authenticate", b"Bearer")])
        return matches[0]
