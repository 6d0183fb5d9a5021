"""Client API keys, and their names in logs and the console."""

from __future__ import annotations

import hmac
from collections.abc import Collection, Mapping

from imagegate.errors import AuthenticationError


def key_in(authorization: bytes | None) -> bytes:
    """Return the key of an ``Authorization`` header; empty: there is none."""
    scheme, _, key = (authorization or b"").strip().partition(b" ")
    return key.strip() if scheme.lower() == b"bearer" else b""


def missing_key() -> AuthenticationError:
    """Return the error for a request without a key."""
    return AuthenticationError(
        "You did not provide an API key. Send it as 'Authorization: Bearer YOUR_KEY'.",
        code="missing_api_key",
        headers=[(b"www-authenticate", b"Bearer")],
    )


def invalid_key() -> AuthenticationError:
    """Return the error for a wrong key."""
    return AuthenticationError("Incorrect API key provided.", headers=[(b"www-authenticate", b"Bearer")])


class APIKeys:
    """The keys that a gateway knows.

    Args:
        keys: name -> key, or keys without names; empty: no authentication.
    """

    def __init__(self, keys: Mapping[str, str] | Collection[str] = ()) -> None:
        self._keys = tuple((name, key.encode()) for name, key in named(keys).items())

    def __bool__(self) -> bool:
        return bool(self._keys)

    def find(self, key: bytes) -> str | None:
        """Return the name of a key; None: there is no such key."""
        # Every key is compared in constant time, so that timing reveals nothing about them.
        matches = [name for name, known in self._keys if hmac.compare_digest(key, known)]
        return matches[0] if matches else None

    def name_of(self, authorization: bytes | None) -> str:
        """Return the name of the key in an ``Authorization`` header; "" where no keys are configured.

        Raises:
            AuthenticationError: the key is missing or wrong.
        """
        if not self._keys:
            return ""
        key = key_in(authorization)
        if not key:
            raise missing_key()
        name = self.find(key)
        if name is None:
            raise invalid_key()
        return name


def named(keys: Mapping[str, str] | Collection[str]) -> Mapping[str, str]:
    """Return keys by name: ``key-1``, ``key-2`` where they have none."""
    if isinstance(keys, Mapping):
        return keys
    return {f"key-{place}": key for place, key in enumerate(keys, start=1)}
