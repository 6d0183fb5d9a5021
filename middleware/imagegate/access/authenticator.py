"""API keys, and who requests are from.

A gateway's sources are asked in their order: keys of the configuration, stored keys, the host application.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection, Mapping
from typing import Final

import msgspec
from starlette.types import Scope

from imagegate.access.host import AccessUnavailable, HostPrincipals
from imagegate.access.principal import Principal
from imagegate.access.stored_key import STORED
from imagegate.access.stored_keys import StoredKeys
from imagegate.asgi.helpers import header
from imagegate.errors import AuthenticationError
from imagegate.logger import get_logger

_LONGEST_NAME: Final = 128
"""Characters of a name that records and log lines have."""


def key_in(scope: Scope) -> bytes:
    """Return the key in the ``Authorization`` of a request; empty: there is none."""
    scheme, _, key = (header(scope, b"authorization") or b"").strip().partition(b" ")
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

    def name_of(self, scope: Scope) -> str:
        """Return the name of the key of a request; "" where no keys are configured.

        Raises:
            AuthenticationError: the key is missing or wrong.
        """
        if not self._keys:
            return ""
        key = key_in(scope)
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


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Who a request is from, and what records call them."""

    principal: Principal
    key_name: str = ""
    """Of keys."""
    user: str = ""
    """Of the host's principals."""
    owner: str = ""
    """Whose tasks and idempotency keys they have; empty: those of their ``Authorization``."""

    @property
    def operator_name(self) -> str:
        """What the configuration calls them where it names operators."""
        return self.key_name or self.principal.id


class Authenticator:
    """Finds out who requests are from.

    Args:
        keys: of the configuration, by name.
        principals: what the configuration says of them; default: that they may do anything.
        stored: looks up keys that were made at run time.
        host: asks the host application.
    """

    def __init__(
        self,
        keys: Mapping[str, str],
        principals: Mapping[str, Principal] | None = None,
        *,
        stored: StoredKeys | None = None,
        host: HostPrincipals | None = None,
    ) -> None:
        self._keys = APIKeys(keys)
        known = principals or {}
        self._identities = {
            name: Identity(principal=known.get(name) or Principal(id=name), key_name=name) for name in keys
        }
        self._stored = stored
        self._host = host

    def __bool__(self) -> bool:
        return bool(self._keys) or self._stored is not None or self._host is not None

    def known(self, scope: Scope) -> Identity | None:
        """Return who sent a request where no waiting is needed for it; None: `find` has to be asked."""
        key = key_in(scope)
        if not key:
            return None
        if (name := self._keys.find(key)) is not None:
            return self._identities[name]
        holder = None if self._stored is None else self._stored.known(key)
        return None if holder is None else _holder(holder)

    async def find(self, scope: Scope) -> Identity:
        """Return who sent a request.

        Raises:
            AuthenticationError: the credentials are missing or unknown.
            AccessUnavailable: that cannot be found out at the moment.
        """
        if found := self.known(scope):
            return found
        key = key_in(scope)
        if self._stored is not None and key and (holder := await self._stored.find(key)) is not None:
            return _holder(holder)
        principal = None if self._host is None else await self._host.find(scope)
        if principal is None:
            raise self._refusal(scope)
        if principal.id in self._identities or principal.id.startswith(STORED):
            get_logger().error("the access function returned a Principal with the id of a key")
            raise AccessUnavailable
        return Identity(principal=principal, user=principal.name[:_LONGEST_NAME], owner=principal.id)

    def _refusal(self, scope: Scope) -> AuthenticationError:
        # Which credentials the host takes is its own affair.
        is_missing = not key_in(scope) if self._host is None else header(scope, b"authorization") is None
        return missing_key() if is_missing else invalid_key()

    def enter_loop(self) -> None:
        """Serve another event loop."""
        if self._stored is not None:
            self._stored.enter_loop()

    def close(self) -> None:
        """Let go of threads."""
        if self._stored is not None:
            self._stored.close()
        if self._host is not None:
            self._host.close()


def _holder(principal: Principal) -> Identity:
    return Identity(principal=principal, key_name=principal.name[:_LONGEST_NAME], owner=principal.id)
