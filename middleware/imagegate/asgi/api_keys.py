"""Client API keys, and their names in logs and the console."""

from __future__ import annotations

import hmac
from collections.abc import Collection, Mapping

from imagegate.errors import AuthenticationError


class APIKeys:
    """The keys that a gateway knows.

    Args:
        keys: name -> key, or keys without names; empty: no authentication.
    """

    def __init__(self, keys: Mapping[str, str] | Collection[str] = ()) -> None:
        named = keys if isinstance(keys, Mapping) else {f"key-{place}": key for place, key in enumerate(keys, start=1)}
        self._keys = tuple((name, key.encode()) for name, key in named.items())

    def __bool__(self) -> bool:
        return bool(self._keys)

    @property
    def names(self) -> tuple[str, ...]:
        """Of all keys."""
        return tuple(name for name, _ in self._keys)

    def name_of(self, authorization: bytes | None) -> str:
        """Return the name of the key in an ``Authorization`` header; "" where no keys are configured.

        Raises:
            AuthenticationError: the key is missing or wrong.
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
        # Every key is compared in constant time, so that timing reveals nothing about them.
        matches = [name for name, known in self._keys if hmac.compare_digest(key, known)]
        if not matches:
            raise AuthenticationError("Incorrect API key provided.", headers=[(b"www-authenticate", b"Bearer")])
        return matches[0]
